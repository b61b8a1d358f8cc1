"""Writes the figures of a run into docs/explanation/reliability.md, between two markers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.cases.catalogue import CASES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BEGIN", "END", "PAGE", "table_of", "write_table"]

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


def table_of(results: Sequence[dict[str, Any]], *, scale: float, seconds: float, schedulers: int) -> str:
    """Return the figures of a run in Markdown."""
    faults = {case.name: case for case in CASES}
    lines = [
        (
            f"`make test-faults SCALE={scale:g} SECONDS={seconds:g}`, {schedulers} scheduler{'s' * (schedulers > 1)}, "
            "three executors of one slot:"
        ),
        "",
        f"| fault | {' | '.join(_COLUMNS.values())} | further | passed |",
        f"|---|{'---|' * len(_COLUMNS)}---|---|",
    ]
    for result in results:
        case = faults[result["case"]]
        cells = [_cell(name, result.get(name)) for name in _COLUMNS]
        further = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.items() if name not in _KNOWN)
        lines.append(
            f"| {case.fault} (`{case.name}`) | {' | '.join(cells)} | {case.bar}: {further} | "
            f"{'yes' if result['passed'] else '**no**'} |"
        )
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value} s" if name.endswith("_s") else str(value)


def write_table(results: Sequence[dict[str, Any]], *, scale: float, seconds: float, schedulers: int) -> None:
    """Replace what stands between the markers."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = table_of(results, scale=scale, seconds=seconds, schedulers=schedulers)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
