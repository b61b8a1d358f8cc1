"""Named points at which a scheduler can be told to die, so that tests may see what a crash exactly there costs.

`PIXLOOM_CRASH_POINT=commit.before:3` kills the process, as kill -9 does, when it reaches `commit.before` for the third
time. Without the variable, which is how it always runs but in tests, `reach` does nothing.

| point | |
|---|---|
| `commit.before` | everything of a transaction was sent but its COMMIT |
| `commit.after` | Postgres has answered COMMIT, and nobody else knows |
| `publish.before`, `publish.after` | a dispatch is composed; NATS has it |
| `acknowledge.before` | results are durable, and the executor has not been told |
| `reply.before` | a job is durable, and its caller has not been told |
"""

from __future__ import annotations

import os
import signal
from typing import Final

__all__ = ["POINTS", "VARIABLE", "reach"]

VARIABLE: Final = "PIXLOOM_CRASH_POINT"
POINTS: Final = (
    "commit.before", "commit.after", "publish.before", "publish.after", "acknowledge.before", "reply.before",
)  # fmt: skip


class _Countdown:
    """Kills the process when a point was reached often enough."""

    __slots__ = ("_left", "_point")

    def __init__(self, spec: str) -> None:
        point, _, times = spec.partition(":")
        self._point = point
        self._left = int(times or 1)

    def reach(self, point: str) -> None:
        """Count a point down."""
        if point == self._point:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


_countdown: Final = _Countdown(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def reach(point: str) -> None:
    """Die here if that was asked for."""
    if _countdown is not None:
        _countdown.reach(point)
