"""The simulated world: its clock, its dice, its event log, and what is wrong with it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tests.simulation.loop import VirtualLoop, outside

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

__all__ = ["EPOCH_S", "Violation", "ViolationError", "World"]

EPOCH_S = 1_900_000_000.0
"""What Postgres's clock shows when the virtual one shows nought."""

KEPT_LINES = 400


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold.

    Attributes:
        rule: Which one.
        detail: Where and how.
        step: Number of the line in the event log.
    """

    rule: str
    detail: str
    step: int


class ViolationError(AssertionError):
    """The run was stopped at a violation."""


class World:
    """What all parts of a simulation share.

    Attributes:
        rng: Where every random decision comes from.
        step: Lines in the event log so far.
        violations: What was found wrong.
        is_calm: Whether nothing is made to fail any more.
        is_over: Whether the run has ended and its parts are only taken down.
    """

    def __init__(self, seed: int, *, is_verbose: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.loop = cast("VirtualLoop", asyncio.get_running_loop())
        self.step = 0
        self.violations: list[Violation] = []
        self.is_calm = False
        self.is_over = False
        self.lines: deque[str] = deque(maxlen=None if is_verbose else KEPT_LINES)
        self.every_50_steps: list[Callable[[], None]] = []
        self._hash = hashlib.sha256()
        self._outside = cast("Context", outside())
        self._stop = asyncio.Event()
        self._is_looking = False

    def now(self) -> float:
        """Return the time by Postgres's clock, seconds."""
        return EPOCH_S + self.loop.time()

    def after(self, delay_s: float, call: Callable[..., Any], *args: Any) -> None:
        """Let something happen later, whoever lives or dies meanwhile."""
        self.loop.call_at(self.loop.time() + delay_s, call, *args, context=self._outside)

    def chance(self, probability: float) -> bool:
        """Return True that often; never once it is calm."""
        return self.rng.random() < probability and not self.is_calm

    def latency(self) -> float:
        """Return how long a message takes, seconds: mostly less than a millisecond, at times much more."""
        if self.chance(0.01):
            return self.rng.uniform(0.05, 0.4)
        return self.rng.expovariate(2000.0)

    def log(self, kind: str, *fields: object) -> None:
        """Write a line into the event log; the hash of all lines is the identity of a run."""
        self.step += 1
        line = f"{self.loop.time():.6f} {kind} {' '.join(map(str, fields))}"
        self._hash.update(line.encode())
        self.lines.append(line)
        if self.step % 50 == 0 and not self._is_looking:
            self._is_looking = True
            for look in self.every_50_steps:
                look()
            self._is_looking = False

    def violate(self, rule: str, detail: str) -> None:
        """Note that an invariant does not hold; the run stops."""
        if self.is_over:
            return
        self.violations.append(Violation(rule, detail, self.step))
        self.log("VIOLATION", rule, detail)
        self._stop.set()

    async def stopped(self) -> None:
        """Wait for the first violation."""
        await self._stop.wait()

    def digest(self) -> str:
        """Return the hash of the event log."""
        return self._hash.hexdigest()
