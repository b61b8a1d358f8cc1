from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom.errors import InvalidError
from pixloom.opcodec import op_from_proto, op_to_proto
from pixloom.v1 import op_pb2

if TYPE_CHECKING:
    from pixloom.graph import Catalogue


def test_every_op_survives_the_wire(catalogue: Catalogue) -> None:
    ops = list(catalogue)
    assert ops == [op_from_proto(op_pb2.Op.FromString(op_to_proto(op).SerializeToString())) for op in ops]


def test_an_op_of_an_executor_that_says_nothing_of_it_does_not_expand(catalogue: Catalogue) -> None:
    op = catalogue.get("tiles.cut")
    assert op is not None
    wire = op_to_proto(op)
    assert op_from_proto(wire).expands
    wire.ClearField("expands")
    assert not op_from_proto(wire).expands


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "image.blur"}, "no version"),
        ({"name": "image.blur@x"}, "no version"),
        ({"kind": op_pb2.OP_KIND_UNSPECIFIED}, "no kind"),
        ({"output": op_pb2.PORT_TYPE_UNSPECIFIED}, "without a type"),
        ({"params_schema_json": b"{"}, "not JSON"),
        ({"params_schema_json": b"[]"}, "no JSON object"),
    ],
)
def test_message_that_is_no_op_is_refused(catalogue: Catalogue, change: dict[str, object], message: str) -> None:
    wire = op_to_proto(next(iter(catalogue)))
    for field, value in change.items():
        setattr(wire, field, value)
    with pytest.raises(InvalidError, match=message):
        op_from_proto(wire)
