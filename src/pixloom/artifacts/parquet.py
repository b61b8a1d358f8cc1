"""Items as a Parquet table: one row an item, one typed column a field, so that any tool reads a manifest.

Speed decides the shape of the code: a manifest is written and read column by column, columns that hold nothing but
defaults cost next to nothing, and what a column says is put into all messages before the next column is looked at.
"""

from __future__ import annotations

import io
import itertools
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InternalError
from pixloom.v1 import item_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

__all__ = ["decode_table", "encode_items_table", "schema"]

# Field name → how it is kept. Order is the order of the columns.
_COLUMNS: Final[dict[str, str]] = {
    "ordinal": "list<uint64>",
    "key": "string",
    "uri": "string",
    "sha256": "string",
    "size_bytes": "uint64",
    "format": "string",
    "width": "uint32",
    "height": "uint32",
    "pages": "uint32",
    "orientation": "uint32",
    "has_alpha": "bool",
    "icc": "bool",
    "state": "string",
    "reason": "string",
    "detail": "string",
    "parents": "list<string>",
    "op_digest": "string",
    "duration_ms": "float64",
    "attributes_json": "binary",
    "node": "string",
    "intermediate": "bool",
}
# A task reads a slice: it decodes the groups that hold it, not the whole.
_GROUP_ROWS: Final = 2048
_STATE_PREFIX: Final = "ITEM_STATE_"
_STATE_NAMES: Final = {value.number: value.name.removeprefix(_STATE_PREFIX) for value in pb.ItemState.DESCRIPTOR.values}
_STATE_NUMBERS: Final = {name: number for number, name in _STATE_NAMES.items()}


@cache
def schema() -> pa.Schema:
    """Return the columns of a manifest."""
    import pyarrow as pa

    types = {
        "list<uint64>": pa.list_(pa.uint64()),
        "list<string>": pa.list_(pa.string()),
        "string": pa.string(),
        "binary": pa.binary(),
        "uint64": pa.uint64(),
        "uint32": pa.uint32(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
    }
    return pa.schema([pa.field(name, types[kind], nullable=False) for name, kind in _COLUMNS.items()])


def encode_items_table(items: Sequence[pb.Item]) -> bytes:
    """Return the items as a Parquet file (zstd); equal items give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = []
    told = _told(items)
    for field in schema():
        kind = _COLUMNS[field.name]
        if field.name not in told:
            arrays.append(_defaults(kind, field.type, len(items)))
        elif kind.startswith("list<"):
            arrays.append(_list_array([getattr(item, field.name) for item in items], field.type))
        elif field.name == "state":
            arrays.append(pa.array([_STATE_NAMES[item.state] for item in items], field.type))
        else:
            arrays.append(pa.array(_values(items, field.name), field.type))
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=schema()),
        sink,
        compression="zstd",
        use_dictionary=["format", "state", "reason", "detail", "op_digest", "node"],
        write_statistics=False,
        row_group_size=_GROUP_ROWS,
    )
    return sink.getvalue()


def _told(items: Sequence[pb.Item]) -> set[str]:
    """Return the fields that are not at their default in every item."""
    # Merged, messages have the fields that any of them has.
    merged = pb.Item()
    for item in items:
        merged.MergeFrom(item)
    # The default of a state has a name, too.
    return {"state", *(field.name for field, _ in merged.ListFields())}


def _defaults(kind: str, type_: Any, count: int) -> Any:
    """Return a column of defaults."""
    import numpy as np
    import pyarrow as pa

    if kind.startswith("list<"):
        offsets = pa.array(np.zeros(count + 1, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array([], type_.value_type), type=type_)
    if kind in {"string", "binary"}:
        offsets = pa.py_buffer(np.zeros(count + 1, dtype=np.int32))
        return pa.Array.from_buffers(type_, count, [None, offsets, pa.py_buffer(b"")])
    return pa.array(np.zeros(count, dtype=type_.to_pandas_dtype()), type_)


def _values(items: Sequence[pb.Item], name: str) -> list[Any]:
    from operator import attrgetter

    return list(map(attrgetter(name), items))


def _list_array(lists: list[Any], kind: Any) -> Any:
    """Build a list column from offsets and one flat run of values: far quicker than from nested lists."""
    import numpy as np
    import pyarrow as pa

    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(map(len, lists), dtype=np.int32, count=len(lists)), out=offsets[1:])
    flat = pa.array(list(itertools.chain.from_iterable(lists)), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)


def decode_table(data: bytes, *, offset: int = 0, count: int | None = None) -> list[pb.Item]:
    """Return the items of a Parquet file.

    Args:
        data: The file.
        offset: Index of the first item.
        count: Number of items from there; None means to the end.

    Raises:
        InternalError: If it is no manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # No threads: they would not survive the fork of a child that inherits this library.
        file = pq.ParquetFile(pa.BufferReader(data))
        skipped, groups = _groups_of(file.metadata, offset, count)
        table = file.read_row_groups(groups, columns=list(_COLUMNS), use_threads=False)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InternalError(f"A manifest of {len(data)} bytes is no Parquet file with items: {error}") from error
    table = table.slice(offset - skipped, count).combine_chunks()
    items = [pb.Item() for _ in range(table.num_rows)]
    for name, kind in _COLUMNS.items():
        column = table.column(name)
        values = _column_values(column, kind) if name == "state" or _tells(column, kind) else ()
        if name == "state":
            values = [_STATE_NUMBERS[value] for value in values]
        if kind.startswith("list<"):
            for item, several in zip(items, values, strict=False):
                getattr(item, name).extend(several)
        else:
            # A loop of its own for each column, and none of it in Python, takes half of what keywords would.
            deque(map(setattr, items, itertools.repeat(name), values), maxlen=0)
    return items


def _groups_of(metadata: Any, offset: int, count: int | None) -> tuple[int, list[int]]:
    """Return how many rows lie before the row groups that hold a range, and these groups."""
    end = metadata.num_rows if count is None else offset + count
    skipped, start, groups = 0, 0, []
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if start + rows <= offset:
            skipped = start + rows
        elif start < end:
            groups.append(group)
        start += rows
    return skipped, groups


def _tells(column: Any, kind: str) -> bool:
    """Return whether a column may hold anything but defaults, without looking at each value if that can be told."""
    if not column.num_chunks:
        return False
    array = column.chunk(0)
    if kind in {"string", "binary"}:
        # Where its text begins and ends.
        offsets = memoryview(array.buffers()[1]).cast("i")
        return bool(offsets[array.offset] != offsets[array.offset + len(array)])
    if kind.startswith("list<"):
        return bool(array.offsets[0] != array.offsets[len(array)])
    return bool(array.to_numpy(zero_copy_only=False).any())


def _column_values(column: Any, kind: str) -> list[Any]:
    if not column.num_chunks:
        return []
    array = column.chunk(0)
    if kind.startswith("list<"):
        offsets = array.offsets.to_pylist()
        flat = _plain(array.values, "string" if kind == "list<string>" else "uint64")
        return [flat[start:end] for start, end in itertools.pairwise(offsets)]
    return _plain(array, kind)


def _plain(array: Any, kind: str) -> list[Any]:
    # Strings are quickest as pyarrow makes them, numbers through numpy.
    values: list[Any] = (
        array.to_pylist() if kind in {"string", "binary"} else array.to_numpy(zero_copy_only=False).tolist()
    )
    return values
