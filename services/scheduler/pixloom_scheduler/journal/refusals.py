"""Why PostgreSQL lets nobody in, as its SQLSTATE tells, in sentences that say what to do."""

from __future__ import annotations

from typing import Final

from pixloom.errors import MachineError

__all__ = ["refusal_of"]

_SENTENCES: Final = {
    "3D000": "there is no database of the name in PIXLOOM_DATABASE_URL; create it first",
    "28000": "the database refuses the user in PIXLOOM_DATABASE_URL",
    "28P01": "the database refuses the user or password in PIXLOOM_DATABASE_URL",
    "42501": "the user in PIXLOOM_DATABASE_URL lacks rights on the schema pixloom",
}
"""By SQLSTATE (PostgreSQL documentation, appendix A)."""


def refusal_of(sqlstate: str | None) -> MachineError | None:
    """Return the error that tells of a refusal, or None where the state is no refusal."""
    sentence = _SENTENCES.get(sqlstate or "")
    return None if sentence is None else MachineError(sentence)
