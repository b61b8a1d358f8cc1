"""What a fault cost: read from the database, the ledger of the client and the file of executions."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixloom.artifacts.store import open_store
from pixloom_scheduler.journal.check.database import check_database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.cluster import Cluster
    from tests.faults.load import Load

__all__ = ["Outcome", "judge", "percentile", "recoveries"]

_JOBS = """
SELECT count(j.id), count(*) FILTER (WHERE j.state = 'COMPLETED')
FROM unnest($1::text[]) AS accepted(id) LEFT JOIN pixloom.job j ON j.id = accepted.id
"""
# Bit 1 of the flags says that the row ended its task, kind 7 is an attempt, 6 a release that was decided.
_RESULTS = """
SELECT count(*) FROM (
  SELECT 1 FROM pixloom.journal WHERE kind = 7 AND flags & 1 = 1
  GROUP BY job_id, generation, stage, shard HAVING count(*) > 1
) twice
"""
_RELEASES = """
SELECT (SELECT count(*) FROM (
  SELECT 1 FROM pixloom.journal WHERE kind = 6 GROUP BY job_id, generation, data->>'stage' HAVING count(*) > 1
) decided) + (SELECT count(*) FROM (
  SELECT 1 FROM pixloom.journal, LATERAL (SELECT cuts[i] AS stage, cuts[i + 1] AS edge
    FROM generate_series(1, cardinality(cuts), 4) i) cut
  WHERE kind = 7 AND cuts IS NOT NULL
  GROUP BY job_id, generation, journal.stage, shard, cut.stage, cut.edge HAVING count(*) > 1
) cut)
"""
_REQUESTS = "SELECT count(*) FROM pixloom.job WHERE request_id = ANY($1::text[])"
# How long it took, after each of some moments, until an attempt that began after it was durable.
_RECOVERIES = """
SELECT extract(epoch FROM first.time) - m.moment FROM unnest($1::float8[]) AS m(moment), LATERAL (
  SELECT time FROM pixloom.journal
  WHERE kind = 7 AND outcome = 1 AND start_time > to_timestamp(m.moment) AND time > to_timestamp(m.moment)
  ORDER BY time LIMIT 1
) first
"""


@dataclass(slots=True)
class Outcome:
    """What one case prints.

    Attributes:
        figures: What every case prints.
        bars: The further bar of the case: name, figure, and whether it is met.
        problems: What was not as it should be, in words.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, tuple[Any, bool]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled or broken, and every bar is met."""
        names = ("lost", "duplicate_results", "duplicate_releases", "invariant_violations")
        return (
            not any(self.figures.get(name) for name in names)
            and all(met for _, met in self.bars.values())
            and not self.problems
        )


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that `share` of the values do not exceed (nearest rank); None if there is none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


async def recoveries(cluster: Cluster, moments: Sequence[float]) -> list[float]:
    """Return the seconds from each moment (seconds since 1970) to the first result of work begun after it."""
    return [float(row[0]) for row in await cluster.query(_RECOVERIES, list(moments))]


async def judge(cluster: Cluster, load: Load, *, moments: Sequence[float] = ()) -> Outcome:
    """Return the figures of a case that is over.

    Args:
        cluster: The stack, all faults taken away.
        load: What ran on it.
        moments: When faults happened, seconds since 1970.
    """
    ledger, outcome = load.ledger, Outcome()
    ids = list(ledger.accepted.values())
    present, completed = (await cluster.query(_JOBS, ids))[0]
    jobs_of_requests = (await cluster.query(_REQUESTS, list(ledger.accepted)))[0][0]
    if jobs_of_requests != len(ids):
        outcome.problems.append(f"{len(ids)} requests have {jobs_of_requests} jobs")
    store = open_store(cluster.artifacts.as_uri())
    findings = await _settled_check(cluster, store)
    executions = load.executions()
    times = await recoveries(cluster, moments)
    recovery = percentile(times, 0.99)
    outcome.figures = {
        "accepted": len(ids),
        "completed": completed,
        "lost": len(ids) - completed,
        "duplicate_results": (await cluster.query(_RESULTS))[0][0],
        "duplicate_releases": (await cluster.query(_RELEASES))[0][0],
        "executions_per_task": round(executions.total() / len(executions), 4) if executions else None,
        "recovery_p99_s": None if recovery is None else round(recovery, 3),
        "invariant_violations": findings.count,
    }
    if present != len(ids):
        outcome.problems.append(f"{len(ids) - present} accepted jobs are not in the database")
    outcome.problems += [
        f"{violation.rule}: job {violation.job} {violation.where}: {violation.detail}"
        for violation in findings.violations[:5]
    ]
    return outcome


async def _settled_check(cluster: Cluster, store: Any) -> Any:
    """Check the database once it has come to rest.

    A job of a submission that was cut off may end a moment later than those accepted, and a server notices only at its
    time limit that whoever had opened a transaction is gone.
    """
    passing = {"every job has ended", "no transaction is open"}
    for _ in range(50):
        findings = await check_database(cluster.database_url, at_rest=True, artifacts=store)
        if not any(violation.rule in passing for violation in findings.violations):
            break
        await asyncio.sleep(0.2)
    return findings
