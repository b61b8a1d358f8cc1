"""What stages gave that others read as a whole, kept in memory while it is little.

An op over a whole collection starts when the stage before it has ended. What that stage gave was reported to this very
replica a moment ago, in most cases all of it: then nothing needs to be read from the journal.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pixloom.v1 import item_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.v1 import executor_pb2

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
    """What one stage gave: number of shards, their manifests, and what these take; None once that was too much."""

    shards: int = 0
    bytes: int = 0
    manifests: list[item_pb2.Manifest] | None = field(default_factory=list)


class GatheredOutputs:
    """Manifests by stage; what was not used for longest is forgotten first."""

    def __init__(self) -> None:
        self._stages: OrderedDict[Stage, _Outputs] = OrderedDict()
        self._bytes = 0

    def add(self, stage: Stage, report: executor_pb2.Report, *, ended: int, gave: frozenset[int]) -> None:
        """Take in a report.

        Args:
            stage: What it is about.
            report: What was reported.
            ended: Number of shards that it has ended.
            gave: Those of them that have given items, as the journal has it.
        """
        outputs = self._stages.setdefault(stage, _Outputs())
        self._stages.move_to_end(stage)
        outputs.shards += ended
        if outputs.manifests is None:
            return
        manifests = [result.output for result in report.results if result.shard in gave]
        columns = report.ordinary
        if columns.shards and gave.issuperset(columns.shards):
            # Messages one behind the other are read as one message, and their repeated fields as one list.
            manifests.append(item_pb2.Manifest(count=sum(columns.items), inline=b"".join(columns.outputs)))
        else:
            rows = zip(columns.shards, columns.items, columns.outputs, strict=False)
            manifests += [item_pb2.Manifest(count=items, inline=one) for shard, items, one in rows if shard in gave]
        outputs.manifests += manifests
        size = sum(len(manifest.inline) + MANIFEST_BYTES for manifest in manifests)
        outputs.bytes += size
        self._bytes += size
        if outputs.bytes > STAGE_BYTES:
            self._bytes -= outputs.bytes
            outputs.bytes, outputs.manifests = 0, None
        while self._bytes > TOTAL_BYTES or len(self._stages) > MOST_STAGES:
            _, old = self._stages.popitem(last=False)
            self._bytes -= old.bytes

    def get(self, stage: Stage, *, shards: int) -> Sequence[item_pb2.Manifest] | None:
        """Return what a stage gave, or None unless all of its `shards` are known that have ended."""
        outputs = self._stages.get(stage)
        return outputs.manifests if outputs is not None and outputs.shards == shards else None
