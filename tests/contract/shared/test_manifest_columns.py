from __future__ import annotations

import io

import pyarrow.parquet as pq

from pixloom.artifacts.parquet import encode_items_table, schema
from pixloom.v1 import item_pb2 as pb


def test_every_field_of_an_item_is_a_column_in_the_same_order() -> None:
    assert schema().names == [field.name for field in pb.Item.DESCRIPTOR.fields]


def test_states_are_readable_in_any_tool() -> None:
    items = [pb.Item(state=state) for state in sorted(pb.ItemState.values())]
    table = pq.ParquetFile(io.BytesIO(encode_items_table(items))).read()
    assert table.column("state").to_pylist() == ["UNSPECIFIED", "OK", "FILTERED", "REJECTED"]


def test_table_is_compressed_with_zstd() -> None:
    metadata = pq.ParquetFile(io.BytesIO(encode_items_table([pb.Item(key="a")]))).metadata
    assert metadata.row_group(0).column(1).compression == "ZSTD"
