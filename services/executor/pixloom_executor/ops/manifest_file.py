"""`agg.manifest`: a table of the items as a file."""

from __future__ import annotations

import csv
import io
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.op import File, Item, op

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["manifest"]

_FIELDS: Final = (
    "key",
    "ordinal",
    "uri",
    "sha256",
    "size_bytes",
    "format",
    "width",
    "height",
    "pages",
    "orientation",
    "has_alpha",
    "icc",
    "state",
    "reason",
    "detail",
    "parents",
    "op_digest",
    "duration_ms",
)
_MEDIA_TYPES: Final = {
    "parquet": "application/vnd.apache.parquet",
    "jsonl": "application/jsonl",
    "csv": "text/csv",
}
# Characters with which a cell would be taken for a formula by a spreadsheet (OWASP, CSV injection).
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


@op("agg.manifest", version=1, cost_hint_s=0.05, timeout_s=600.0)
def manifest(
    items: list[Item],
    *,
    format: Annotated[  # noqa: A002 - the name users know
        Literal["parquet", "jsonl", "csv"], Field(description="Format of the file")
    ] = "parquet",
) -> File:
    """Write one row for every item: the fields of its record, then its attributes by name.

    - **Columns:** attributes are columns of their own; one that is called like a field of the record is prefixed
      `attr_`, as often as it takes to be the only one. An item without an attribute has none there. `ordinal` and `parents` are lists; in CSV they are joined by
      `.` and a space, other lists are JSON.
    - **Types:** in Parquet as given; a column with values of several kinds, or such as Parquet does not have (an object
      without fields, an integer beyond 64 bits with a sign), holds JSON text. In CSV a text that a
      spreadsheet would run as a formula is preceded by an apostrophe.
    - **Gives:** `rows` and `columns` as facts.
    - **Source:** Apache Parquet with zstd; JSON Lines; RFC 4180.
    """
    columns = _columns(sorted({name for item in items for name in item.attributes}))
    header = [*_FIELDS, *columns.values()]
    match format:
        case "parquet":
            data = _parquet(items, columns)
        case "jsonl":
            data = _json_lines([_row(item, columns) for item in items])
        case "csv":
            data = _csv([_row(item, columns) for item in items], header)
    return File(data, _MEDIA_TYPES[format], {"rows": len(items), "columns": header})


def _columns(names: list[str]) -> dict[str, str]:
    """Return the column of each attribute: its name, prefixed where another column is called so."""
    columns: dict[str, str] = {}
    taken = set(names)
    for name in names:
        column = name
        while column in _FIELDS or (column != name and column in taken):
            column = f"attr_{column}"
        taken.add(column)
        columns[name] = column
    return columns


def _row(item: Item, columns: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(item, name) for name in _FIELDS}
    row["ordinal"] = list(item.ordinal)
    row["parents"] = list(item.parents)
    row.update({columns[name]: value for name, value in item.attributes.items()})
    return row


def _parquet(items: list[Item], columns: dict[str, str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, integer, truth = pa.string(), pa.int64(), pa.bool_()
    known = {
        "ordinal": pa.list_(pa.uint64()),
        "parents": pa.list_(text),
        "duration_ms": pa.float64(),
        **dict.fromkeys(("size_bytes", "width", "height", "pages", "orientation"), integer),
        **dict.fromkeys(("has_alpha", "icc"), truth),
        **dict.fromkeys(("key", "uri", "sha256", "format", "state", "reason", "detail", "op_digest"), text),
    }
    fields = zip(*map(attrgetter(*_FIELDS), items), strict=True) if items else [()] * len(_FIELDS)
    arrays = [_of_type(known[name], values) for name, values in zip(_FIELDS, fields, strict=True)]
    arrays += [_typed([item.attributes.get(name) for item in items]) for name in columns]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=[*_FIELDS, *columns.values()]), sink, compression="zstd")
    return sink.getvalue()


def _of_type(kind: Any, values: Sequence[Any]) -> Any:
    """Return a column of a type; most hold one value throughout, as what is not known does."""
    import pyarrow as pa

    if values and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, type=kind)


def _typed(values: list[Any]) -> Any:
    """Return a column of the type its values have, of JSON text if there is no such type."""
    import pyarrow as pa

    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError):
        array = None
    if array is None or _has_empty_struct(array.type):
        return pa.array([None if value is None else _json(value) for value in values], type=pa.string())
    return array


def _has_empty_struct(kind: Any) -> bool:
    """Return whether a type cannot be written: Parquet has no object without fields."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _has_empty_struct(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)
    return False


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{_json(row)}\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]], header: list[str]) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow([_cell(name, name) for name in header])
    for row in rows:
        writer.writerow([_cell(name, row.get(name)) for name in header])
    return sink.getvalue().encode()


def _cell(name: str, value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() if name == "ordinal":
            return ".".join(map(str, value))
        case list() if name == "parents":
            return " ".join(value)
        case list() | dict():
            return _json(value)
        case str() if value.startswith(_FORMULA_STARTS):
            return f"'{value}"
        case _:
            return value


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value).decode()
