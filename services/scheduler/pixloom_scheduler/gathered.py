"""What stages gave that others read as a whole, kept in memory while it is little.

An op over a whole collection starts when the stage before it has ended. What that stage gave was reported to this very
replica a moment ago, in most cases all of it: then nothing needs to be read from the journal. All of it is here when as
many shards were seen to end as have ended. Nothing that a job gave before it was loaded counts: the database may have
been put back meanwhile, and other shards have ended since.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import ref

from pixloom.v1 import item_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.v1 import executor_pb2
    from pixloom_scheduler.core.model import JobRun

__all__ = ["GatheredOutputs"]

Stage = tuple[str, int, int]
"""Job, generation and stage."""

STAGE_BYTES: Final = 1024 * 1024
TOTAL_BYTES: Final = 16 * 1024 * 1024
MOST_STAGES: Final = 4096
MANIFEST_BYTES: Final = 300
"""About what a manifest takes beside its inline items."""


@dataclass(slots=True)
class _Outputs:
    """What one stage gave.

    Attributes:
        run: The job as it was loaded, while it is in memory.
        shards: Number of shards that were seen to end.
        bytes: About what the manifests take.
        manifests: What they gave; None once that was too much.
    """

    run: ref[JobRun]
    shards: int = 0
    bytes: int = 0
    manifests: list[item_pb2.Manifest] | None = field(default_factory=list)


class GatheredOutputs:
    """Manifests by stage; what was not added to for longest is forgotten first."""

    def __init__(self) -> None:
        self._stages: OrderedDict[Stage, _Outputs] = OrderedDict()
        self._bytes = 0

    def add(self, run: JobRun, report: executor_pb2.Report, *, ended: int, given: frozenset[int]) -> None:
        """Take in a report that says one thing of each of its tasks.

        Args:
            run: The job.
            report: What was reported.
            ended: Number of shards that it has ended.
            given: Shards of which what it says they gave counts.
        """
        stage = (run.id, report.generation, report.stage)
        outputs = self._stages.get(stage)
        if outputs is None or outputs.run() is not run:
            self._forget(stage)
            outputs = self._stages[stage] = _Outputs(ref(run))
        self._stages.move_to_end(stage)
        outputs.shards += ended
        if outputs.manifests is None:
            return
        manifests = _manifests(report, given)
        outputs.manifests += manifests
        size = sum(len(manifest.inline) + MANIFEST_BYTES for manifest in manifests)
        outputs.bytes += size
        self._bytes += size
        if outputs.bytes > STAGE_BYTES:
            self._bytes -= outputs.bytes
            outputs.bytes, outputs.manifests = 0, None
        while self._bytes > TOTAL_BYTES or len(self._stages) > MOST_STAGES:
            self._forget(next(iter(self._stages)))

    def get(self, run: JobRun, stage: int) -> Sequence[item_pb2.Manifest] | None:
        """Return what a stage of a job gave, or None unless that of all its shards that have ended is known."""
        outputs = self._stages.get((run.id, run.generation, stage))
        if outputs is None or outputs.run() is not run or outputs.shards != run.stages[stage].done:
            return None
        return outputs.manifests

    def _forget(self, stage: Stage) -> None:
        outputs = self._stages.pop(stage, None)
        if outputs is not None:
            self._bytes -= outputs.bytes


def _manifests(report: executor_pb2.Report, given: frozenset[int]) -> list[item_pb2.Manifest]:
    """Return what a report gave, what travels inside as one manifest; nothing of it keeps the report in memory."""
    columns = report.ordinary
    manifests: list[item_pb2.Manifest] = []
    if given.issuperset(columns.shards):
        count, inline = sum(columns.items), list(columns.outputs)
    else:
        rows = [row for row, shard in enumerate(columns.shards) if shard in given]
        count, inline = sum(columns.items[row] for row in rows), [columns.outputs[row] for row in rows]
    for result in report.results:
        output = result.output
        if not output.count or result.shard not in given:
            continue
        if output.WhichOneof("content") == "inline":
            count += output.count
            inline.append(output.inline)
        else:
            manifest = item_pb2.Manifest()
            manifest.CopyFrom(output)
            manifests.append(manifest)
    if count:
        # Messages one behind the other are read as one message, and their repeated fields as one list.
        manifests.append(item_pb2.Manifest(count=count, inline=b"".join(inline)))
    return manifests
