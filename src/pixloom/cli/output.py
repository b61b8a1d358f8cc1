"""Results on the standard output: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from pixloom.cli.context import Globals, OutputFormat
from pixloom.cli.streams import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from pydantic import BaseModel

__all__ = ["duration_text", "print_json", "print_list", "print_one", "print_table", "size_text", "time_text"]

M = TypeVar("M", bound="BaseModel")

_WIDE = 10_000
"""Columns when nobody looks: lines for programs are never cut."""


def print_json(value: Any, *, lines: bool = False) -> None:
    """Print a JSON value: indented, or on one line."""
    # Escapes of JSON where the stream would have to use others.
    takes_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    put(json.dumps(value, ensure_ascii=not takes_all, indent=None if lines else 2))


def print_one(entry: BaseModel, options: Globals, show: Callable[[], None]) -> None:
    """Print one resource: its JSON, or what `show` prints."""
    if options.output is OutputFormat.TABLE:
        show()
    else:
        print_json(entry.model_dump(mode="json"), lines=options.output is OutputFormat.JSONL)


def print_list(
    entries: Sequence[M],
    options: Globals,
    columns: Sequence[str],
    row: Callable[[M], Sequence[Any]],
    *,
    next_page_token: str = "",
) -> None:
    """Print resources: a page as REST gives it, one JSON object a line, or a table.

    Args:
        entries: The resources.
        options: The global options.
        columns: Heads of the table.
        row: Makes the cells of a resource.
        next_page_token: Token of the next page.
    """
    match options.output:
        case OutputFormat.JSON:
            items = [entry.model_dump(mode="json") for entry in entries]
            print_json({"items": items, "next_page_token": next_page_token})
        case OutputFormat.JSONL:
            for entry in entries:
                print_json(entry.model_dump(mode="json"), lines=True)
        case OutputFormat.TABLE:
            print_table(columns, [row(entry) for entry in entries], color=options.color)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, color: bool = True) -> None:
    """Print a table; numbers stand right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lines = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        right = bool(lines) and all(isinstance(line[index], int | float | None) for line in lines)
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in line))
    on_terminal = sys.stdout.isatty()
    Console(no_color=not color, highlight=False, width=None if on_terminal else _WIDE).print(table)


def time_text(time: datetime | None) -> str:
    """Return a time as people read it, in their own zone."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration_text(seconds: float | None) -> str:
    """Return a duration as people read it."""
    if seconds is None:
        return ""
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size_text(size_bytes: int | None) -> str:
    """Return a size as people read it, in powers of 1000."""
    if size_bytes is None:
        return ""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
