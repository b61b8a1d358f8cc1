"""What a stage over a whole collection reads from memory: all of what flows into it, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler import gathered
from pixloom_scheduler.core.apply import apply
from pixloom_scheduler.core.changes import AttemptEnded, Cut, Split
from pixloom_scheduler.core.states import Outcome
from pixloom_scheduler.gathered import GatheredOutputs
from pixloom_scheduler.inputs import PAGE_BYTES, InputReader, OutputCache
from tests.support.live_jobs import live_job

SHAPE = [(StageKind.SOURCE, []), (StageKind.MAPPED, [0]), (StageKind.WHOLE, [1])]


def items(*keys):
    return item_pb2.ItemBatch(items=[item_pb2.Item(key=key) for key in keys]).SerializeToString()


def columns(**outputs):
    """Return a report of shards `s0`, `s1`, … as columns, one item each."""
    shards = [int(name[1:]) for name in outputs]
    return executor_pb2.Report(
        generation=1,
        stage=1,
        ordinary=executor_pb2.OrdinaryResults(
            shards=shards, items=[1] * len(shards), outputs=[items(key) for key in outputs.values()]
        ),
    )


def keys(manifests):
    return [item.key for manifest in manifests for item in item_pb2.ItemBatch.FromString(manifest.inline).items]


class Job:
    """A job of three shards, and the journal of its middle stage."""

    def __init__(self, shards=3):
        self.live = live_job(1, SHAPE, shard_size=1)
        cut = Cut(stage=1, edge=0, items=shards, size=1)
        self._end(0, 0, items_out=shards, cuts=(cut,), seals=True)
        self.rows = []
        self.pages = 0
        self.cache = OutputCache()
        payloads: Any = self
        self.reader = InputReader(cache=self.cache, payloads=payloads)

    async def payload_page(self, live, stage, *, after, most):
        self.pages += 1
        return [row for row in self.rows if row[0] > after][:most]

    def _end(self, stage, shard, *, outcome=Outcome.OK, items_out=1, **more):
        change = AttemptEnded(
            stage=stage, shard=shard, attempt=1, outcome=outcome, executor="x", start=0.0, end=0.0,
            items_out=items_out, **more,
        )  # fmt: skip
        apply(self.live.run, [change])
        return change

    def end(self, shard, key="", **more):
        """End a shard, and have the journal say so."""
        change = self._end(1, shard, items_out=bool(key), **more)
        if key:
            output = item_pb2.Manifest(count=1, inline=items(key))
            payload = executor_pb2.TaskResult(output=output).SerializeToString()
            self.rows.append((len(self.rows) + 1, shard, payload))
        return change

    def report(self, report, ends):
        self.cache.gathered.add(
            self.live.run, report,
            ended=sum(change.ends_shard for change in ends),
            given=frozenset(change.shard for change in ends if change.outcome in (Outcome.OK, Outcome.PARTIAL)),
        )  # fmt: skip

    async def read(self, most=1000):
        """Return the keys of what the last stage reads, sorted, and how often the journal was asked."""
        self.pages, found, token = 0, [], ""
        while True:
            slices, token = await self.reader.page(self.live, 2, token=token, most=most)
            assert [part.count for part in slices] == [part.manifest.count for part in slices]
            found += keys(part.manifest for part in slices)
            if not token:
                return sorted(found), self.pages


@pytest.fixture
def job():
    return Job()


async def test_what_was_reported_is_read_from_memory_and_is_what_the_journal_has(job):
    job.report(columns(s0="a", s1="b"), [job.end(0, "a"), job.end(1, "b")])
    job.report(columns(s2="c"), [job.end(2, "c")])
    assert await job.read() == (["a", "b", "c"], 0)
    job.cache.gathered = GatheredOutputs()
    assert await job.read() == (["a", "b", "c"], 1)


async def test_messages_and_columns_of_a_report_are_gathered_together(job):
    report = columns(s0="a", s2="c")
    report.results.add(shard=1).output.CopyFrom(item_pb2.Manifest(count=1, inline=items("b")))
    job.report(report, [job.end(shard, key) for shard, key in enumerate("abc")])
    assert await job.read() == (["a", "b", "c"], 0)


async def test_a_manifest_in_the_store_is_passed_on(job):
    large = item_pb2.Manifest(count=500, artifact=item_pb2.ArtifactRef(sha256="0" * 64, size_bytes=9))
    report = columns(s0="a", s2="c")
    report.results.add(shard=1).output.CopyFrom(large)
    job.report(report, [job.end(shard, key) for shard, key in enumerate("abc")])
    slices, token = await job.reader.page(job.live, 2, token="", most=1000)
    assert (token, job.pages) == ("", 0)
    assert large in [part.manifest for part in slices]
    assert sum(part.count for part in slices) == 502


async def test_without_the_report_of_one_shard_all_is_read_from_the_journal(job):
    job.report(columns(s0="a", s1="b"), [job.end(0, "a"), job.end(1, "b")])
    job.end(2, "c")  # at another replica, or given up as lost
    assert await job.read() == (["a", "b", "c"], 1)


async def test_results_that_were_refused_do_not_count(job):
    job.end(1, "b")
    job.report(columns(s0="a", s1="forged"), [job.end(0, "a")])
    job.report(columns(s2="c"), [job.end(2, "c")])
    assert await job.read() == (["a", "b", "c"], 1)


async def test_what_a_shard_that_failed_says_it_gave_does_not_count(job):
    failed = job.end(1, outcome=Outcome.FAILED, carried=True)
    job.report(columns(s0="a", s1="not accepted", s2="c"), [job.end(0, "a"), failed, job.end(2, "c")])
    assert await job.read() == (["a", "c"], 0)


async def test_a_shard_that_is_tried_again_counts_once_it_has_ended(job):
    first = columns(s0="a")
    first.results.add(shard=1)
    again = job.end(1, outcome=Outcome.FAILED, ends_shard=False, due=5.0)
    job.report(first, [job.end(0, "a"), again])
    job.report(columns(s2="c"), [job.end(2, "c")])
    assert job.live.run.stages[1].done == 2
    job.report(columns(s1="b"), [job.end(1, "b")])
    assert await job.read() == (["a", "b", "c"], 0)


async def test_parts_of_a_shard_that_was_split_are_read_once_each(job):
    split = Split(subsets=((0,),), attempt=2, failures=1, lost=0, due=0.0)
    report = columns(s0="a", s2="c")
    report.results.add(shard=1).output.CopyFrom(item_pb2.Manifest(count=1, inline=items("b")))
    partial = job.end(1, "b", outcome=Outcome.PARTIAL, split=split)
    job.report(report, [job.end(0, "a"), partial, job.end(2, "c")])
    assert len(job.live.run.stages[1].shards) == 4
    job.report(columns(s3="d"), [job.end(3, "d")])
    assert await job.read() == (["a", "b", "c", "d"], 0)


async def test_what_another_generation_gave_is_read_from_the_journal(job):
    job.report(columns(s0="a", s1="b", s2="c"), [job.end(shard, key) for shard, key in enumerate("abc")])
    job.live.run.generation = 2
    assert await job.read() == (["a", "b", "c"], 1)


async def test_what_was_gathered_before_the_job_was_loaded_again_does_not_count():
    before, after = Job(), Job()
    cache = after.reader._cache = after.cache = before.cache
    before.report(columns(s0="lost", s1="lost"), [before.end(0, "a"), before.end(1, "b")])
    # The database was put back to the moment before: the first two shards end once more, at another replica.
    ends = [after.end(shard, key) for shard, key in enumerate("abc")]
    after.report(columns(s2="c"), ends[2:])
    assert after.live.header.id == before.live.header.id
    assert cache.gathered.get(after.live.run, 1) is None
    assert await after.read() == (["a", "b", "c"], 1)


async def test_a_stage_that_gave_too_much_is_read_from_the_journal(job, monkeypatch):
    monkeypatch.setattr(gathered, "STAGE_BYTES", 2 * gathered.MANIFEST_BYTES)
    for shard, key in enumerate("abc"):
        job.report(columns(**{f"s{shard}": key}), [job.end(shard, key)])
    assert await job.read() == (["a", "b", "c"], 1)
    assert job.cache.gathered._bytes == 0


async def test_what_was_pushed_out_is_read_from_the_journal(job, monkeypatch):
    job.report(columns(s0="a"), [job.end(0, "a")])
    other = live_job(2, SHAPE).run
    monkeypatch.setattr(gathered, "MOST_STAGES", 1)
    job.cache.gathered.add(other, columns(s0="x"), ended=1, given=frozenset({0}))
    job.report(columns(s1="b", s2="c"), [job.end(1, "b"), job.end(2, "c")])
    assert await job.read() == (["a", "b", "c"], 1)


def test_what_is_kept_stays_within_its_bounds(monkeypatch):
    monkeypatch.setattr(gathered, "TOTAL_BYTES", 10_000)
    memory = GatheredOutputs()
    runs = [live_job(number, SHAPE).run for number in range(50)]
    for run in runs:
        memory.add(run, columns(s0="x" * 500), ended=1, given=frozenset({0}))
    kept = list(memory._stages.values())
    assert memory._bytes == sum(outputs.bytes for outputs in kept) <= 10_000
    assert [outputs.run() for outputs in kept] == runs[-len(kept) :]


async def test_a_page_is_never_too_large_for_a_message():
    """Each of many producers gives little enough to be gathered, and all of them together too much for one message."""
    edges = 12
    live = live_job(
        1, [(StageKind.SOURCE, []), *[(StageKind.MAPPED, [0])] * edges, (StageKind.WHOLE, list(range(1, edges + 1)))]
    )
    key = "k" * 4000
    cache = OutputCache()
    rows = [
        (seq, seq, executor_pb2.TaskResult(output=item_pb2.Manifest(count=1, inline=items(key))).SerializeToString())
        for seq in range(1, 201)
    ]

    class Journal:
        async def payload_page(self, live, stage, *, after, most):
            return [row for row in rows if row[0] > after][:most]

    for stage in range(1, edges + 1):
        report = columns(**{f"s{shard}": key for shard in range(200)})
        report.stage = stage
        live.run.stages[stage].done = 200
        cache.gathered.add(live.run, report, ended=200, given=frozenset(range(200)))
        assert cache.gathered.get(live.run, stage) is not None
    journal: Any = Journal()
    reader = InputReader(cache=cache, payloads=journal)
    found, token, sizes = 0, "", []
    while True:
        slices, token = await reader.page(live, edges + 1, token=token, most=1000)
        sizes.append(executor_pb2.ListInputsResponse(inputs=slices, next_page_token=token).ByteSize())
        found += sum(part.count for part in slices)
        if not token:
            break
    assert found == 200 * edges
    assert max(sizes) < 8 * 1024 * 1024
    assert sum(sizes) > 8 * 1024 * 1024 > PAGE_BYTES
