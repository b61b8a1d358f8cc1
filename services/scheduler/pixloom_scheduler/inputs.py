"""Finds what a task reads: manifests of the shards before it, from memory if they were just reported."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from pixloom.errors import InternalError, InvalidError
from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2, item_pb2
from pixloom_scheduler.gathered import GatheredOutputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pixloom.graph.plan import Edge
    from pixloom_scheduler.core.model import JobRun
    from pixloom_scheduler.live import LiveJob

__all__ = ["InputReader", "OutputCache", "PayloadReader"]

Place = tuple[str, int, int, int]
"""Job, generation, stage and shard."""

Front = tuple[str, int, int, int]
"""Job, generation, the stage that reads and the one that it reads."""

MAX_INLINE_SLICES: Final = 64
CACHE_BYTES: Final = 32 * 1024 * 1024
ENTRY_BYTES: Final = 600
"""About what an entry takes beside its inline items: key, message, its share of the report it came in."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""About how many bytes of items a page has inside; a message over gRPC has at most 8 MiB."""

READ_AHEAD: Final = 512
"""Outputs that are read together by a stage that is far behind the one before it."""

_PAGE_TOKEN: Final = re.compile(r"[0-9]{1,6}\.[0-9]{1,18}")
"""Number of an edge, and of the journal row that the page before ended with."""

MOST_FRONTS: Final = 4096
"""Stages of which it is known how far they have read."""


class PayloadReader(Protocol):
    """Reads payloads of ended attempts from the journal."""

    async def payloads(self, live: LiveJob, stage: int, shards: Iterable[int]) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the attempts that ended `shards` well; looks at the whole job."""

    async def payload_page(self, live: LiveJob, stage: int, *, after: int, most: int) -> list[tuple[int, int, bytes]]:
        """Return journal number, shard and payload of the next attempts that gave something."""


class OutputCache:
    """Output manifests that were reported a moment ago, at most some 32 MiB.

    Attributes:
        gathered: Those of stages that others read as a whole.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.gathered = GatheredOutputs()
        self._manifests: OrderedDict[Place, item_pb2.Manifest] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0

    def put(self, place: Place, manifest: item_pb2.Manifest) -> None:
        """Remember a manifest."""
        known = self._manifests.pop(place, None)
        if known is not None:
            self._bytes -= len(known.inline) + ENTRY_BYTES
        self._manifests[place] = manifest
        self._bytes += len(manifest.inline) + ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, old = self._manifests.popitem(last=False)
            self._bytes -= len(old.inline) + ENTRY_BYTES

    def get(self, place: Place) -> item_pb2.Manifest | None:
        """Return a manifest if it is still remembered."""
        return self._manifests.get(place)


class InputReader:
    """Composes the inputs of tasks."""

    def __init__(self, *, cache: OutputCache, payloads: PayloadReader) -> None:
        self._cache = cache
        self._payloads = payloads
        self._fronts: OrderedDict[Front, int] = OrderedDict()

    async def fill(self, live: LiveJob, stage_index: int, tasks: list[executor_pb2.Task]) -> None:
        """Put the inputs into tasks of one stage, or mark them as paged."""
        run = live.run
        stage = run.stages[stage_index]
        match stage.plan.kind:
            case StageKind.SOURCE:
                return
            case StageKind.MAPPED:
                await self._fill_mapped(live, stage_index, tasks)
            case StageKind.WHOLE:
                for task in tasks:
                    task.inputs.extend(self._value_slices(run, stage_index))
                    shards = sum(run.stages[edge.producer].done for edge in self._item_edges(run, stage_index))
                    if shards > MAX_INLINE_SLICES:
                        task.inputs_paged = True
                    elif shards:
                        slices, more = await self.page(live, stage_index, token="", most=MAX_INLINE_SLICES)
                        if more:
                            task.inputs_paged = True
                        else:
                            task.inputs.extend(slices)

    @staticmethod
    def _item_edges(run: JobRun, stage_index: int) -> list[Edge]:
        return [
            edge
            for edge in run.stages[stage_index].plan.inputs
            if not run.nodes[run.stages[edge.producer].plan.nodes[-1]].has_value
        ]

    @staticmethod
    def _value_slices(run: JobRun, stage_index: int) -> list[item_pb2.InputSlice]:
        slices = []
        for edge in run.stages[stage_index].plan.inputs:
            node = run.nodes[run.stages[edge.producer].plan.nodes[-1]]
            if node.has_value:
                slices.append(item_pb2.InputSlice(port=edge.port, value_json=orjson.dumps(node.value)))
        return slices

    async def _fill_mapped(self, live: LiveJob, stage_index: int, tasks: list[executor_pb2.Task]) -> None:
        shards = live.run.stages[stage_index].shards
        sources = await self._sources(live, stage_index, [task.shard for task in tasks])
        for task in tasks:
            part = task.inputs.add()
            part.CopyFrom(sources[shards.edge[task.shard], shards.source[task.shard]])
            part.offset = shards.offset[task.shard]
            part.count = shards.count[task.shard]
            part.indexes.extend(shards.subsets.get(task.shard, ()))

    async def ordinary(self, live: LiveJob, stage_index: int, chosen: Sequence[int]) -> executor_pb2.OrdinaryTasks:
        """Return whole shards of a mapped stage with their inputs, as columns."""
        stage = live.run.stages[stage_index]
        shards, tasks = stage.shards, stage.tasks
        # Before anything is waited for: another attempt that began meanwhile may be the last one, which is not ordinary.
        attempts = [task.attempt if (task := tasks.get(shard)) is not None else 1 for shard in chosen]
        sources = await self._sources(live, stage_index, chosen)
        place_of = {source: place for place, source in enumerate(sources)}
        return executor_pb2.OrdinaryTasks(
            shards=chosen,
            attempts=attempts,
            places=[place_of[shards.edge[shard], shards.source[shard]] for shard in chosen],
            offsets=[shards.offset[shard] for shard in chosen],
            counts=[shards.count[shard] for shard in chosen],
            sources=sources.values(),
        )

    async def _sources(
        self, live: LiveJob, stage_index: int, chosen: Iterable[int]
    ) -> dict[tuple[int, int], item_pb2.InputSlice]:
        """Return what shards of a mapped stage read, without offset and count, by edge and shard of the producer."""
        run = live.run
        stage = run.stages[stage_index]
        shards, edges = stage.shards, stage.plan.inputs
        job_id, generation = live.header.id, run.generation
        # The cache may let go of what was found in it while the rest is read.
        at_hand: dict[tuple[int, int], item_pb2.Manifest] = {}
        missing: dict[int, set[int]] = {}
        wanted = dict.fromkeys((shards.edge[shard], shards.source[shard]) for shard in chosen)
        for place, source in wanted:
            producer = edges[place].producer
            known = self._cache.get((job_id, generation, producer, source))
            if known is None:
                missing.setdefault(producer, set()).add(source)
            else:
                at_hand[producer, source] = known
        for producer, sources in missing.items():
            for source, output in (await self._read(live, stage_index, producer, sources)).items():
                at_hand[producer, source] = output
        found = {}
        for place, source in wanted:
            edge = edges[place]
            manifest = at_hand.get((edge.producer, source))
            if manifest is None:
                raise InternalError(f"job {job_id}: the journal has no output of task {edge.producer}.{source}")
            prefix = [] if edge.position is None else [edge.position]
            found[place, source] = item_pb2.InputSlice(manifest=manifest, port=edge.port, ordinal_prefix=prefix)
        return found

    async def _read(
        self, live: LiveJob, stage_index: int, producer: int, sources: set[int]
    ) -> dict[int, item_pb2.Manifest]:
        """Return the outputs of some shards of a producer, as the journal has them.

        A stage reads what the one before it gave in the order in which it was given. So what follows in the journal on
        what it read before is read first, and put into the cache for the next batches. Only what is not among that is
        sought by its shards, as when a stage begins to fall behind: that takes the longer, the longer the journal is.
        """
        job_id, generation = live.header.id, live.run.generation
        front = (job_id, generation, stage_index, producer)
        after = self._fronts.get(front)
        rows: list[tuple[int, int, bytes]] = []
        if after is not None:
            rows = await self._payloads.payload_page(live, producer, after=after, most=READ_AHEAD)
        left = sources.difference(shard for _, shard, _ in rows)
        sought = await self._payloads.payloads(live, producer, left) if left else []
        last = max((seq for seq, _, _ in sought or rows), default=0)
        rows += sought
        if last:
            self._fronts[front] = last
            self._fronts.move_to_end(front)
            if len(self._fronts) > MOST_FRONTS:
                self._fronts.popitem(last=False)
        found = {shard: executor_pb2.TaskResult.FromString(payload).output for _, shard, payload in rows}
        for shard, output in found.items():
            self._cache.put((job_id, generation, producer, shard), output)
        return found

    async def page(
        self, live: LiveJob, stage_index: int, *, token: str, most: int
    ) -> tuple[list[item_pb2.InputSlice], str]:
        """Return the next inputs of a whole stage and the token of the page behind them; empty at the end.

        The order is that of the journal; whoever reads sorts the items by ordinal. Short manifests are joined.

        Raises:
            InvalidError: If the token was not given by this list.
        """
        edges = self._item_edges(live.run, stage_index)
        if token and _PAGE_TOKEN.fullmatch(token) is None:
            raise InvalidError("page_token is not one that this list gave; leave it out to begin at the first page")
        if not token and (known := self._gathered(live, edges, most)) is not None:
            return known, ""
        place, seq = (int(part) for part in token.split(".")) if token else (0, 0)
        slices: list[item_pb2.InputSlice] = []
        while place < len(edges):
            edge = edges[place]
            rows = await self._payloads.payload_page(live, edge.producer, after=seq, most=most)
            outputs = [executor_pb2.TaskResult.FromString(payload).output for _, _, payload in rows]
            slices += _slices(edge, outputs)
            if len(rows) == most:
                return slices, f"{place}.{rows[-1][0]}"
            place, seq = place + 1, 0
            if place < len(edges) and _inline_bytes(slices) > PAGE_BYTES // 2:
                return slices, f"{place}.0"
        return slices, ""

    def _gathered(self, live: LiveJob, edges: Iterable[Edge], most: int) -> list[item_pb2.InputSlice] | None:
        """Return all inputs of a whole stage, if all that flows into it was reported a moment ago and fits a page."""
        run = live.run
        slices: list[item_pb2.InputSlice] = []
        for edge in edges:
            outputs = self._cache.gathered.get(run, edge.producer)
            if outputs is None:
                return None
            slices += _slices(edge, outputs)
        return slices if len(slices) <= most and _inline_bytes(slices) <= PAGE_BYTES else None


def _inline_bytes(slices: Iterable[item_pb2.InputSlice]) -> int:
    return sum(len(part.manifest.inline) for part in slices)


def _slices(edge: Edge, outputs: Iterable[item_pb2.Manifest]) -> list[item_pb2.InputSlice]:
    prefix = [] if edge.position is None else [edge.position]
    return [
        item_pb2.InputSlice(manifest=manifest, count=manifest.count, ordinal_prefix=prefix, port=edge.port)
        for manifest in _joined(outputs)
    ]


def _joined(manifests: Iterable[item_pb2.Manifest]) -> Iterator[item_pb2.Manifest]:
    """Yield the manifests in order, those whose items travel inside as one.

    A thousand manifests of one item cost whoever reads them much more than one of a thousand items.
    """
    inline: list[bytes] = []
    count = 0
    for manifest in manifests:
        if manifest.WhichOneof("content") == "inline":
            inline.append(manifest.inline)
            count += manifest.count
            continue
        if count:
            yield _of_parts(inline, count)
            inline, count = [], 0
        if manifest.count:
            yield manifest
    if count:
        yield _of_parts(inline, count)


def _of_parts(inline: list[bytes], count: int) -> item_pb2.Manifest:
    # Messages one behind the other are read as one message, and their repeated fields as one list.
    return item_pb2.Manifest(count=count, inline=b"".join(inline))
