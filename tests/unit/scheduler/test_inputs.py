"""What tasks read: outputs of the shards before theirs, from memory or from the journal."""

from __future__ import annotations

import pytest

from pixloom.errors import InternalError, InvalidError
from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut
from pixloom_scheduler.core.model import TaskRun
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.inputs import ENTRY_BYTES, READ_AHEAD, InputReader, OutputCache
from tests.support.live_jobs import live_job

SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.MAPPED, [1])]


def manifest(shard: int) -> item_pb2.Manifest:
    return item_pb2.Manifest(count=1, inline=b"%d" % shard)


class Journal:
    """Outputs of the middle stage in the order of their shards, as the database would read them."""

    def __init__(self, shards, *, first_seq=3):
        self.rows = [
            (first_seq + shard, shard, executor_pb2.TaskResult(output=manifest(shard)).SerializeToString())
            for shard in range(shards)
        ]
        self.searches = []
        self.pages = 0
        self.meanwhile = lambda: None

    async def payloads(self, live, stage, shards):
        wanted = set(shards)
        self.searches.append(len(wanted))
        self.meanwhile()
        return [row for row in self.rows if row[1] in wanted]

    async def payload_page(self, live, stage, *, after, most):
        self.pages += 1
        return [row for row in self.rows if row[0] > after][:most]


def job_with(shards):
    """Return a job whose middle stage has ended, one item in each shard, so that the last one has as many tasks."""
    live = live_job(1, SHAPE, shard_size=1)
    items = Cut(stage=1, edge=0, items=shards, size=1)
    apply(live.run, [ended(0, 0, items_out=shards, cuts=(items,), seals=True)])
    apply(live.run, [ended(1, shard, cuts=(Cut(stage=2, edge=0, items=1, size=1),)) for shard in range(shards)])
    return live


def ended(stage, shard, *, items_out=1, cuts=(), seals=False):
    return AttemptEnded(
        stage=stage, shard=shard, attempt=1, outcome=Outcome.OK, executor="x", start=0.0, end=0.0,
        items_out=items_out, cuts=cuts, seals=seals,
    )  # fmt: skip


async def read(reader, live, shards):
    tasks = [executor_pb2.Task(shard=shard) for shard in shards]
    await reader.fill(live, 2, tasks)
    return [bytes(part.manifest.inline) for task in tasks for part in task.inputs]


def test_the_same_output_counts_once_however_often_it_is_remembered():
    cache = OutputCache(max_bytes=10 * (ENTRY_BYTES + 1))
    for _ in range(100):
        cache.put(("j", 1, 0, 0), manifest(0))
    for shard in range(10):
        cache.put(("j", 1, 0, shard), manifest(shard))
    assert [shard for shard in range(10) if cache.get(("j", 1, 0, shard)) is None] == []


async def test_a_task_gets_its_input_though_memory_lets_go_of_it_while_another_is_read():
    live, journal = job_with(8), Journal(8)
    cache = OutputCache(max_bytes=5 * (ENTRY_BYTES + 1))
    place = (live.header.id, 1, 1)
    for shard in range(4):
        cache.put((*place, shard), manifest(shard))
    # Reports come in while the journal is read, and push out what the batch had found.

    def report():
        for shard in range(5):
            cache.put(("another", 1, 0, shard), manifest(9))

    journal.meanwhile = report
    reader = InputReader(cache=cache, payloads=journal)
    assert await read(reader, live, range(8)) == [b"%d" % shard for shard in range(8)]


async def test_a_batch_larger_than_the_memory_for_outputs_is_read_whole():
    live, journal = job_with(8), Journal(8)
    reader = InputReader(cache=OutputCache(max_bytes=2 * (ENTRY_BYTES + 1)), payloads=journal)
    assert await read(reader, live, range(8)) == [b"%d" % shard for shard in range(8)]


async def test_a_stage_far_behind_its_producer_reads_the_journal_once_and_in_its_order():
    shards = 4 * READ_AHEAD
    live, journal = job_with(shards), Journal(shards)
    reader = InputReader(cache=OutputCache(), payloads=journal)
    for first in range(0, shards, 16):
        batch = range(first, first + 16)
        assert await read(reader, live, batch) == [b"%d" % shard for shard in batch]
    # The first batch was sought in the whole journal; all others followed upon it.
    assert (journal.searches, journal.pages) == ([16], 4)


async def test_what_lies_elsewhere_in_the_journal_is_found_all_the_same():
    shards = 2 * READ_AHEAD
    live, journal = job_with(shards), Journal(shards)
    reader = InputReader(cache=OutputCache(), payloads=journal)
    for shard in (shards - 1, 0, 700, 3):
        assert await read(reader, live, [shard]) == [b"%d" % shard]


async def test_an_output_that_the_journal_does_not_have_is_told_rather_than_left_out():
    live, journal = job_with(4), Journal(2)
    reader = InputReader(cache=OutputCache(), payloads=journal)
    with pytest.raises(InternalError, match=r"no output of task 1\.2"):
        await read(reader, live, range(3))


async def test_tasks_in_columns_read_the_same_as_messages():
    live, journal = job_with(6), Journal(6)
    reader = InputReader(cache=OutputCache(), payloads=journal)
    chosen = (4, 0, 5)
    tasks = [executor_pb2.Task(shard=shard) for shard in chosen]
    await reader.fill(live, 2, tasks)
    columns = await reader.ordinary(live, 2, chosen)
    assert list(columns.shards) == list(chosen)
    assert list(columns.attempts) == [1, 1, 1]
    for task, place, offset, count in zip(tasks, columns.places, columns.offsets, columns.counts, strict=True):
        expected = item_pb2.InputSlice()
        expected.CopyFrom(columns.sources[place])
        expected.offset, expected.count = offset, count
        assert list(task.inputs) == [expected]


async def test_what_several_tasks_read_is_sent_once_in_columns():
    live = live_job(1, SHAPE, shard_size=2)
    items = Cut(stage=1, edge=0, items=7, size=2)
    apply(live.run, [ended(0, 0, items_out=7, cuts=(items,), seals=True)])
    cache = OutputCache()
    cache.put((live.header.id, 1, 0, 0), item_pb2.Manifest(count=7, inline=b"seven"))
    columns = await InputReader(cache=cache, payloads=Journal(0)).ordinary(live, 1, range(4))
    assert [source.manifest.inline for source in columns.sources] == [b"seven"]
    assert list(zip(columns.places, columns.offsets, columns.counts, strict=True)) == [
        (0, 0, 2), (0, 2, 2), (0, 4, 2), (0, 6, 1),
    ]  # fmt: skip


async def test_attempts_in_columns_are_those_of_the_moment_when_the_tasks_were_found_ordinary():
    live, journal = job_with(2), Journal(2)

    def fail():
        live.run.stages[2].tasks[0] = TaskRun(attempt=2, failures=1)

    journal.meanwhile = fail
    columns = await InputReader(cache=OutputCache(), payloads=journal).ordinary(live, 2, (0, 1))
    assert len(journal.searches) == 1
    # The claim of it will be refused; one of attempt 2 could be the last and would have to say so.
    assert list(columns.attempts) == [1, 1]


async def test_pages_of_a_whole_stage_go_on_where_the_token_says():
    live, journal = job_with(5), Journal(5)
    reader = InputReader(cache=OutputCache(), payloads=journal)
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        slices, token = await reader.page(live, 2, token=token, most=2)
        pages.append([each.count for each in slices])
    assert pages == [[2], [2], [1]]


@pytest.mark.parametrize("token", ["x", "0", "0.", ".5", "0.5.1", "-1.0", "0.x", "0.\u0665", "0." + "9" * 19, " 0.1"])
async def test_a_page_token_that_no_page_gave_is_refused(token):
    reader = InputReader(cache=OutputCache(), payloads=Journal(2))
    with pytest.raises(InvalidError, match="page_token is not one that this list gave"):
        await reader.page(job_with(2), 2, token=token, most=10)
