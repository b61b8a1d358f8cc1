from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from pixloom.sdk.op import Item, Reject
from pixloom.v1 import item_pb2
from pixloom_executor.records import clean_text, record_from, record_to_message, rejected_message


def full() -> Item:
    return Item(
        key="a/b.jpg",
        ordinal=(3, 1),
        uri="file:///a/b.jpg",
        sha256="ab",
        size_bytes=10,
        format="jpeg",
        width=4,
        height=5,
        pages=1,
        orientation=6,
        has_alpha=True,
        icc=True,
        parents=("cd",),
        op_digest="ef",
        attributes={"sharpness": 1.5, "tags": ["x"]},
        intermediate=True,
    )


def test_a_record_survives_the_way_through_a_message() -> None:
    assert record_from(record_to_message(full())) == full()


def test_an_ordinal_gets_its_prefix() -> None:
    assert record_from(item_pb2.Item(ordinal=[5], key="k"), (2,)).ordinal == (2, 5)


def test_attributes_may_be_numpy_values() -> None:
    message = record_to_message(Item(attributes={"a": np.float32(0.5), "b": np.arange(3)}))
    assert orjson.loads(message.attributes_json) == {"a": 0.5, "b": [0, 1, 2]}


def test_nul_and_lone_surrogates_never_leave() -> None:
    message = record_to_message(Item(key="a\0b\udcff", attributes={"camera\0": "x\0", "deep": [{"y": "\0"}]}))
    assert "\0" not in message.key
    assert b"\\u0000" not in message.attributes_json
    message.SerializeToString()


def test_attributes_that_are_no_json_reject_the_item() -> None:
    with pytest.raises(Reject) as caught:
        record_to_message(Item(attributes={"a": object()}))
    assert caught.value.reason == "BAD_ATTRIBUTES"


@pytest.mark.parametrize("record", [Item(width=-1), Item(ordinal=(-1,)), Item(size_bytes=1 << 70, uri="cas:a")])
def test_a_field_that_does_not_fit_rejects_the_item(record: Any) -> None:
    with pytest.raises(Reject) as caught:
        record_to_message(record)
    assert caught.value.reason == "BAD_RECORD"


def test_a_rejected_item_always_has_a_message() -> None:
    record = Item(key="k", ordinal=(1,), attributes={"a": object()})
    message = rejected_message(record, state="REJECTED", reason="R", detail="x" * 5000, node="n")
    assert (message.key, message.reason, message.node) == ("k", "R", "n")
    assert message.state == item_pb2.ITEM_STATE_REJECTED
    assert len(message.detail) == 1024


def test_text_is_cut_between_characters() -> None:
    assert clean_text("\u00e4" * 10, 5) == "\u00e4\u00e4"
