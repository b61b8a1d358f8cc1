"""A batch has the same tasks as messages and as columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pixloom.batches import is_sound, keep_tasks, task_count, task_keys
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2
from pixloom_executor.ordinary import OrdinaryTask, tasks_of

Row = tuple[int, int, int, int, int]
"""Shard, attempt, place, offset, count."""

SOURCES = [item_pb2.InputSlice(manifest=item_pb2.Manifest(count=9, inline=b"%d" % place)) for place in range(4)]

rows = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(1, 9),
        st.integers(0, len(SOURCES) - 1),
        st.integers(0, 50),
        st.integers(1, 50),
    ),
    unique_by=lambda row: row[0],
    max_size=30,
)


def as_messages(chosen: list[Row]) -> pb.LeaseBatch:
    batch = pb.LeaseBatch()
    for shard, attempt, place, offset, count in chosen:
        part = batch.tasks.add(shard=shard, attempt=attempt).inputs.add()
        part.CopyFrom(SOURCES[place])
        part.offset, part.count = offset, count
    return batch


def as_columns(chosen: list[Row]) -> pb.LeaseBatch:
    columns = pb.OrdinaryTasks(sources=SOURCES)
    for shard, attempt, place, offset, count in chosen:
        columns.shards.append(shard)
        columns.attempts.append(attempt)
        columns.places.append(place)
        columns.offsets.append(offset)
        columns.counts.append(count)
    return pb.LeaseBatch(ordinary=columns)


@given(rows)
def test_a_batch_has_the_same_tasks_either_way(chosen: list[Row]) -> None:
    messages, columns = as_messages(chosen), as_columns(chosen)
    expected = tuple((shard, attempt) for shard, attempt, *_ in chosen)
    assert task_keys(messages) == task_keys(columns) == expected
    assert task_count(messages) == task_count(columns) == len(chosen)


@given(rows, st.data())
def test_exactly_the_tasks_that_are_kept_stay_and_read_what_they_did(chosen: list[Row], data: st.DataObject) -> None:
    kept = {
        shard: attempt + data.draw(st.sampled_from([0, 0, 0, 1]))
        for shard, attempt, *_ in chosen
        if data.draw(st.booleans())
    }
    left = [row for row in chosen if kept.get(row[0]) == row[1]]
    for made, expected in ((as_messages(chosen), as_messages(left)), (as_columns(chosen), as_columns(left))):
        keep_tasks(made, kept)
        assert made == expected
        assert task_keys(made) == tuple((shard, attempt) for shard, attempt, *_ in left)
    columns = as_columns(chosen)
    keep_tasks(columns, kept)
    assert list(tasks_of(columns)) == [
        OrdinaryTask(shard, attempt, SOURCES[place], offset, count) for shard, attempt, place, offset, count in left
    ]


@given(rows.filter(bool), st.sampled_from(["shards", "attempts", "places", "offsets", "counts"]))
def test_columns_that_do_not_fit_together_are_no_batch(chosen: list[Row], name: str) -> None:
    assert is_sound(as_messages(chosen))
    batch = as_columns(chosen)
    assert is_sound(batch)
    batch.tasks.add()
    assert not is_sound(batch)
    del batch.tasks[:]
    batch.ordinary.places[-1] = len(SOURCES)
    assert not is_sound(batch)
    batch = as_columns(chosen)
    del getattr(batch.ordinary, name)[-1]
    assert not is_sound(batch)
