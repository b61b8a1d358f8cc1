"""Writes the figures of a run into docs/explanation/reliability.md, between two markers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.cases.catalogue import CASES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BEGIN", "END", "PAGE", "merged", "write_table"]

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
BEGIN = "<!-- make test-faults writes what follows -->"
END = "<!-- make test-faults writes what precedes -->"

_COLUMNS = {
    "accepted": "accepted",
    "completed": "completed",
    "lost": "lost",
    "duplicate_results": "results twice",
    "duplicate_releases": "releases twice",
    "executions_per_task": "executions per task",
    "recovery_p99_s": "recovery p99",
    "invariant_violations": "violations",
}
_KNOWN = {*_COLUMNS, "case", "seconds", "passed", "missed", "problems"}


def row_of(result: dict[str, Any], *, run: str) -> str:
    """Return the figures of a case as a row of the table; `run` says how it was run."""
    case = next(case for case in CASES if case.name == result["case"])
    cells = [_cell(name, result.get(name)) for name in _COLUMNS]
    further = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items() if name not in _KNOWN)
    passed = "yes" if result["passed"] else "**no**"
    return f"| {case.fault} (`{case.name}`) | {' | '.join(cells)} | {case.bar}: {further} | {run} | {passed} |"


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value} s" if name.endswith("_s") else str(value)


def table_of(rows: dict[str, str]) -> str:
    """Return the table of rows by case, in the order of the cases."""
    head = [
        f"| fault | {' | '.join(_COLUMNS.values())} | further | scale, seconds, schedulers | passed |",
        f"|---|{'---|' * len(_COLUMNS)}---|---|---|",
    ]
    return "\n".join([*head, *(rows[case.name] for case in CASES if case.name in rows)])


def merged(text: str, results: Sequence[dict[str, Any]], *, run: str) -> str:
    """Return the page with the rows of the cases that were run in place of those before."""
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {name: line for line in table.splitlines() for name in re.findall(r"^\| [^|]*\(`([a-z-]+)`\) \|", line)}
    rows.update({result["case"]: row_of(result, run=run) for result in results})
    return f"{before}{BEGIN}\n\n{table_of(rows)}\n\n{END}{after}"


def write_table(results: Sequence[dict[str, Any]], *, run: str) -> None:
    """Put the figures of cases that were run into the page."""
    PAGE.write_text(merged(PAGE.read_text(encoding="utf-8"), results, run=run), encoding="utf-8")
