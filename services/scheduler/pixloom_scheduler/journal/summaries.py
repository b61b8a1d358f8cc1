"""Stretches of a journal summed up by the database, so that a restart does not read half a million rows one by one.

A row is *plain* if it is an attempt that ended its shard well and says nothing else that memory keeps: no failure, no
split, no page of a source, no value, no warning. The others are read in full. Journal numbers are dense, so that the
rows between two of those are a stretch; PostgreSQL gives each as a few columns of four-byte integers and sums.
"""

from __future__ import annotations

import sys
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
from sqlalchemy import text

from pixloom_scheduler.core.summary import CutColumns, EndedShards, Stretch, TallyCount
from pixloom_scheduler.journal.rows import decode_tallies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from sqlalchemy import RowMapping, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["IS_PLAIN", "Span", "other_rows", "stretches"]

IS_PLAIN: Final = """((
    kind = 7 AND outcome = 1 AND flags = 1 AND (data IS NULL OR data - 'reasons' = '{}')
) IS TRUE)"""
"""Kind, outcome and flags as `rows` writes them: an attempt, OK, which ends its shard and does nothing else."""

_ROWS: Final = f"""
FROM pixloom.journal
WHERE day = :day AND job_id = :job_id AND seq > :after AND seq <= :last AND {IS_PLAIN}
"""
_STRETCH: Final = "width_bucket(seq, CAST(:others AS bigint[])) AS stretch"
_ENDED: Final = f"""
SELECT {_STRETCH}, stage, count(*) AS rows, string_agg(int4send(CAST(shard AS integer)), '') AS shards,
    count(*) FILTER (WHERE attempt > 1) AS retries, sum(items_out) AS items_out,
    coalesce(sum(items_out) FILTER (WHERE counts IS NULL), 0) AS passed,
    min(start_time) AS start_time, max(time) AS written,
    bool_or(counts IS NOT NULL) AS counts, bool_or(cuts IS NOT NULL) AS cuts
{_ROWS} GROUP BY 1, 2
"""
_COUNTED: Final = f"""
SELECT {_STRETCH}, stage, counts, CAST(data AS text) AS data, count(*) AS rows
{_ROWS} AND counts IS NOT NULL GROUP BY 1, 2, 3, data
"""
# The cuts of a row lie behind one another, four numbers each: stage, edge, items and size.
_CUT: Final = f"""
SELECT stretch, cuts[place] AS stage,
    string_agg(
        int4send(cuts[place + 1]) || int4send(source) || int4send(cuts[place + 2]) || int4send(cuts[place + 3]), ''
        ORDER BY seq, place
    ) AS columns
FROM (SELECT {_STRETCH}, seq, CAST(shard AS integer) AS source, cuts {_ROWS} AND cuts IS NOT NULL) made,
    generate_series(1, cardinality(cuts), 4) AS place
GROUP BY 1, 2
"""  # noqa: S608 - put together from constants
_WIDTH: Final = 4


class Span(NamedTuple):
    """Rows of one job's journal.

    Attributes:
        day: The day of the job.
        job_id: The job.
        after: Number of the row before the first.
        last: Number of the last.
    """

    day: date
    job_id: str
    after: int
    last: int


class _Parts:
    """A stretch that is being put together."""

    def __init__(self) -> None:
        self.rows = 0
        self.ended: list[EndedShards] = []
        self.tallies: list[TallyCount] = []
        self.cuts: list[CutColumns] = []


async def other_rows(connection: AsyncConnection, span: Span) -> list[int]:
    """Return the numbers of those rows of a span that are not plain, in order."""
    query = f"""
    SELECT seq FROM pixloom.journal
    WHERE day = :day AND job_id = :job_id AND seq > :after AND seq <= :last AND NOT {IS_PLAIN} ORDER BY seq
    """  # noqa: S608 - put together from constants
    return list((await connection.execute(text(query), span._asdict())).scalars())


async def stretches(connection: AsyncConnection, span: Span, others: list[int]) -> dict[int, Stretch]:
    """Return the plain rows of a span, summed up between the others.

    Args:
        connection: In a transaction that sees one state of the journal.
        span: The rows.
        others: What `other_rows` gave for it.

    Returns:
        By the number of other rows before it, each stretch that has rows.
    """
    given = {**span._asdict(), "others": others}

    async def rows(query: TextClause) -> Sequence[RowMapping]:
        return (await connection.execute(query, given)).mappings().all()

    parts: defaultdict[int, _Parts] = defaultdict(_Parts)
    has_counts = has_cuts = False
    for row in await rows(text(_ENDED)):
        part = parts[row["stretch"]]
        part.rows += row["rows"]
        part.ended.append(_ended(row))
        has_counts, has_cuts = has_counts or row["counts"], has_cuts or row["cuts"]
    for row in await rows(text(_COUNTED)) if has_counts else ():
        parts[row["stretch"]].tallies.append(_counted(row))
    for row in await rows(text(_CUT)) if has_cuts else ():
        parts[row["stretch"]].cuts.append(_cut(row))
    return {
        place: Stretch(part.rows, tuple(part.ended), tuple(part.tallies), tuple(part.cuts))
        for place, part in parts.items()
    }


def _integers(sent: bytes) -> array[int]:
    """Return integers that PostgreSQL sent in network order."""
    numbers = array("i")
    if numbers.itemsize != _WIDTH:
        raise ValueError("C integers are not four bytes wide here")
    numbers.frombytes(sent)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _ended(row: RowMapping) -> EndedShards:
    return EndedShards(
        stage=row["stage"],
        shards=_integers(row["shards"]),
        retries=row["retries"],
        items_out=row["items_out"],
        passed=row["passed"],
        start=row["start_time"].timestamp() if row["start_time"] else 0.0,
        written=row["written"].timestamp(),
    )


def _counted(row: RowMapping) -> TallyCount:
    reasons = orjson.loads(row["data"])["reasons"] if row["data"] else None
    return TallyCount(stage=row["stage"], tallies=decode_tallies(row["counts"], reasons), attempts=row["rows"])


def _cut(row: RowMapping) -> CutColumns:
    columns = _integers(row["columns"])
    return CutColumns(row["stage"], columns[0::4], columns[1::4], columns[2::4], columns[3::4])
