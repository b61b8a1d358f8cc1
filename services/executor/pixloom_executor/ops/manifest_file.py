"""`agg.manifest`: a table of the items as a file."""

from __future__ import annotations

import csv
import io
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from pixloom.sdk.op import File, Item, op

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
      `attr_`. An item without an attribute has none there. `ordinal` and `parents` are lists; in CSV they are joined by
      `.` and a space, other lists are JSON.
    - **Types:** in Parquet as given; a column with values of several kinds holds JSON text. In CSV a text that a
      spreadsheet would run as a formula is preceded by an apostrophe.
    - **Gives:** `rows` and `columns` as facts.
    - **Source:** Apache Parquet with zstd; JSON Lines; RFC 4180.
    """
    names = sorted({name for item in items for name in item.attributes})
    columns = {name: f"attr_{name}" if name in _FIELDS else name for name in names}
    header = [*_FIELDS, *columns.values()]
    match format:
        case "parquet":
            data = _parquet(items, columns)
        case "jsonl":
            data = _json_lines([_row(item, columns) for item in items])
        case "csv":
            data = _csv([_row(item, columns) for item in items], header)
    return File(data, _MEDIA_TYPES[format], {"rows": len(items), "columns": header})


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
    arrays = [pa.array(list(map(attrgetter(name), items)), type=known[name]) for name in _FIELDS]
    for name in columns:
        values = [item.attributes.get(name) for item in items]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            arrays.append(pa.array([None if value is None else _json(value) for value in values], type=text))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, names=[*_FIELDS, *columns.values()]), sink, compression="zstd")
    return sink.getvalue()


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(f"{_json(row)}\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]], header: list[str]) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(header)
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
