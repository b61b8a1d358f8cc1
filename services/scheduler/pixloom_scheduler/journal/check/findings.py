"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_SHOWN", "Findings", "Violation"]

MAX_SHOWN: Final = 1000
"""Violations that are kept for showing; all are counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must hold and does not.

    Attributes:
        rule: What must hold, in words; the same for all violations of it.
        job: Id of the job; empty if it is about no job.
        where: Place in the job or the database, such as `row 17` or `partition 3`.
        detail: What was found.
    """

    rule: str
    job: str
    where: str
    detail: str


@dataclass(slots=True)
class Findings:
    """The sum of a check.

    Attributes:
        jobs: Jobs whose journal was replayed.
        rows: Journal rows read.
        artifacts: Artifacts whose bytes were compared with their digest.
        count: Violations found.
        violations: The first of them.
    """

    jobs: int = 0
    rows: int = 0
    artifacts: int = 0
    count: int = 0
    violations: list[Violation] = field(default_factory=list)

    def add(self, violation: Violation) -> None:
        """Note a violation."""
        self.count += 1
        if len(self.violations) < MAX_SHOWN:
            self.violations.append(violation)
