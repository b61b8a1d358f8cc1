"""One run: a world put together from a seed, a storm of faults over it, and the calm in which everything must end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from tests.simulation.database import SimulatedDatabase
from tests.simulation.faults import Faults, Storm
from tests.simulation.invariants import Invariants
from tests.simulation.jetstream import SimulatedNats
from tests.simulation.loop import StuckError, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.workload import Client
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

__all__ = ["Outcome", "run_seed"]

STORM_S = 25.0
CALM_S = 560.0
"""More than the five minutes after which a dispatch is taken for lost, and the longest that a child hangs."""

QUIET_S = 30.0
SHARE_WITH_SIBLINGS = 0.4


@dataclass(slots=True)
class Outcome:
    """What became of a run.

    Attributes:
        seed: Its seed.
        digest: Hash of its event log.
        steps: Lines in its event log.
        loop_steps: Callbacks that ran.
        commits: Transactions that were committed.
        jobs: Jobs that were accepted.
        takeovers: Transactions that gave partitions an owner or none.
        ended_in_storm: Jobs that had ended before it was calm.
        violations: What did not hold.
        lines: The end of the event log, or all of it.
    """

    seed: int
    digest: str
    steps: int
    loop_steps: int
    commits: int
    jobs: int
    takeovers: int
    ended_in_storm: int
    violations: list[Violation]
    lines: list[str] = field(repr=False, default_factory=list)


@contextlib.contextmanager
def _quiet_logs(lines: list[str]) -> Iterator[None]:
    """Keep logs from the terminal; unexpected errors are kept."""

    def capture(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if method in {"error", "exception", "critical"}:
            lines.append(f"{event.get('event')} {event.get('error', '')}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def run_seed(seed: int, *, is_verbose: bool = False, faults: Faults | None = None, storm_s: float = STORM_S) -> Outcome:
    """Run one seed, with a storm of so many seconds, and return what became of it."""
    loop = VirtualLoop()
    gc.disable()
    with _quiet_logs([]):
        try:
            return loop.run_until_complete(_run(seed, is_verbose=is_verbose, faults=faults, storm_s=storm_s))
        finally:
            _close(loop)
            gc.enable()


def _close(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.set_exception_handler(lambda _, __: None)
    if left:
        with contextlib.suppress(StuckError):
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    with contextlib.suppress(StuckError):
        loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _run(seed: int, *, is_verbose: bool, faults: Faults | None, storm_s: float) -> Outcome:
    world = World(seed, is_verbose=is_verbose)
    world.loop.set_exception_handler(lambda _, context: _unexpected(world, context))
    database = SimulatedDatabase(world)
    invariants = Invariants(world, database)
    queue, network = SimulatedNats(world), Network(world)
    queue.on_publish.append(invariants.published)
    queue.on_repetition.append(invariants.repeated)
    network.on_response.append(invariants.responded)
    if faults is None:
        faults = Faults.drawn(world.rng)
        faults.siblings = random.Random(f"{seed} siblings").random() < SHARE_WITH_SIBLINGS
    storm = Storm(world, faults, database, queue, network, invariants)
    world.every_50_steps.append(lambda: invariants.look(storm.serving()))
    world.every_50_steps.append(storm.look)
    client = Client(world, database, storm.serving, siblings=faults.siblings)
    scenario = asyncio.create_task(_play(world, storm, client, invariants, storm_s=storm_s))
    stopped = asyncio.create_task(world.stopped())
    try:
        await asyncio.wait([scenario, stopped], return_when=asyncio.FIRST_COMPLETED)
        if scenario.done():
            scenario.result()
    except StuckError as error:
        world.violate("something always goes on", str(error))
    world.is_over = True
    scenario.cancel()
    storm.end()
    return Outcome(
        seed=seed,
        digest=world.digest(),
        steps=world.step,
        loop_steps=world.loop.steps,
        commits=len(database.commits),
        jobs=len(client.accepted),
        takeovers=sum(commit.is_takeover for commit in database.commits),
        ended_in_storm=storm.ended,
        violations=world.violations,
        lines=list(world.lines),
    )


def _unexpected(world: World, context: dict[str, Any]) -> None:
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)[-3:]) if error is not None else ""
    world.violate("nothing fails unseen", f"{context.get('message')}: {error!r} {text}")


async def _play(world: World, storm: Storm, client: Client, invariants: Invariants, *, storm_s: float) -> None:
    storm.start()
    client.start(world.rng.randint(2, 6), commands=storm.faults.commands)
    await asyncio.sleep(storm_s)
    storm.count_ended()
    await storm.calm_down()
    end = world.loop.time() + CALM_S
    while world.loop.time() < end:
        await asyncio.sleep(2.0)
        await client.help_along()
        storm.look()
        if not client.process.tasks and storm.is_everything_over() and not storm.leftovers():
            break
    await asyncio.sleep(QUIET_S)
    for problem in storm.leftovers():
        world.violate("after all is quiet nothing is left", problem)
    invariants.finish(storm.surviving(list(client.accepted)), storm.surviving(list(client.cancelled)))
