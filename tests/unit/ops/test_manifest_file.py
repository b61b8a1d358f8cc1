from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from pixloom.sdk.record import File, Item
from pixloom_executor.ops.manifest_file import manifest


def _content(file: File) -> bytes:
    assert isinstance(file.content, bytes)
    return file.content


def _items() -> list[Item]:
    return [
        Item(
            key="a.jpg", ordinal=(0,), uri="cas:1", width=640, parents=("p", "q"), attributes={"pdq256": "00", "n": 1}
        ),
        Item(key="b, \u00e9.jpg", ordinal=(1, 2), attributes={"n": 2.5, "tags": ["x", "y"], "width": 9, "dark": True}),
    ]


def test_parquet_has_a_row_for_every_item_and_a_column_for_every_attribute() -> None:
    file = manifest(_items())
    table = pq.read_table(io.BytesIO(_content(file)))
    assert file.media_type == "application/vnd.apache.parquet"
    assert file.facts["rows"] == table.num_rows == 2
    assert file.facts["columns"] == table.column_names
    first, second = table.to_pylist()
    assert (first["key"], first["ordinal"], first["parents"], first["width"]) == ("a.jpg", [0], ["p", "q"], 640)
    assert (first["pdq256"], first["n"], first["tags"], first["dark"]) == ("00", 1.0, None, None)
    assert (second["tags"], second["attr_width"], second["width"]) == (["x", "y"], 9, 0)


def test_mixed_types_become_json_text() -> None:
    items = [Item(key="a", attributes={"v": 1}), Item(key="b", attributes={"v": "one"}), Item(key="c")]
    table = pq.read_table(io.BytesIO(_content(manifest(items))))
    assert table["v"].to_pylist() == ["1", '"one"', None]


@pytest.mark.parametrize(
    ("value", "text"), [({}, "{}"), ([{}], "[{}]"), ({"a": {}}, '{"a":{}}'), (2**63, "9223372036854775808")]
)
def test_what_parquet_has_no_type_for_becomes_json_text(value: Any, text: str) -> None:
    items = [Item(key="a", attributes={"v": value, "w": [{"x": 1}]}), Item(key="b")]
    table = pq.read_table(io.BytesIO(_content(manifest(items))))
    assert table["v"].to_pylist() == [text, None]
    assert table["w"].to_pylist() == [[{"x": 1}], None]


def test_every_attribute_has_a_column_of_its_own() -> None:
    items = [Item(key="a", attributes={"key": 1, "attr_key": 2, "other": 3})]
    table = pq.read_table(io.BytesIO(_content(manifest(items))))
    (row,) = table.to_pylist()
    assert len(set(table.column_names)) == len(table.column_names)
    assert (row["key"], row["attr_key"], row["attr_attr_key"], row["other"]) == ("a", 2, 1, 3)


def test_json_lines() -> None:
    rows = [json.loads(line) for line in _content(manifest(_items(), format="jsonl")).decode().splitlines()]
    assert [row["key"] for row in rows] == ["a.jpg", "b, \u00e9.jpg"]
    assert rows[1]["tags"] == ["x", "y"]
    assert "tags" not in rows[0]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(_content(manifest(_items(), format="csv")).decode())))
    assert [row["ordinal"] for row in rows] == ["0", "1.2"]
    assert rows[0]["parents"] == "p q"
    assert (rows[1]["key"], rows[1]["dark"], rows[1]["tags"]) == ("b, \u00e9.jpg", "true", '["x","y"]')


def test_csv_disarms_formulas_in_names_of_columns() -> None:
    header = _content(manifest([Item(key="a", attributes={"=1+1": 2})], format="csv")).decode().splitlines()[0]
    assert header.endswith(",'=1+1")


def test_csv_disarms_formulas() -> None:
    items = [Item(key="=HYPERLINK()", attributes={"n": -3})]
    (row,) = csv.DictReader(io.StringIO(_content(manifest(items, format="csv")).decode()))
    assert (row["key"], row["n"]) == ("'=HYPERLINK()", "-3")


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_no_items_give_a_table_without_rows(form: Any) -> None:
    assert manifest([], format=form).facts["rows"] == 0


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_same_items_give_the_same_bytes(form: Any) -> None:
    assert manifest(_items(), format=form).content == manifest(_items(), format=form).content
