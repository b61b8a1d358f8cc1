"""Batches and stores for tests of the executor."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pixloom.artifacts import ArtifactStore, open_store
from pixloom.artifacts.manifest import encode_items, read_items
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, op_pb2
from pixloom_executor.chain import ChainRunner
from pixloom_executor.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path


def call(op: str, node: str = "", **options: Any) -> pb.OpCall:
    params = {
        name: value for name, value in options.items() if name not in {"on_error", "deliver", "timeout_s", "limits"}
    }
    made = pb.OpCall(
        node=node or op.rsplit(".", maxsplit=1)[-1],
        op=op if "@" in op else f"{op}@1",
        params_json=json.dumps(params).encode(),
        on_error=options.get("on_error", pb.ON_ERROR_UNSPECIFIED),
        deliver=options.get("deliver", False),
    )
    if "timeout_s" in options:
        made.timeout.FromNanoseconds(int(options["timeout_s"] * 1e9))
    if "limits" in options:
        made.limits.CopyFrom(pb.Limits(**options["limits"]))
    return made


def item(number: int, **fields: Any) -> item_pb2.Item:
    return item_pb2.Item(ordinal=[number], **{"key": f"item-{number}", "state": item_pb2.ITEM_STATE_OK, **fields})


def file_item(number: int, path: Path) -> item_pb2.Item:
    return item(number, key=path.name, uri=path.as_uri())


def sliced(manifest: item_pb2.Manifest, port: str = "") -> item_pb2.InputSlice:
    return item_pb2.InputSlice(manifest=manifest, count=manifest.count, port=port)


def inline(*items: item_pb2.Item) -> item_pb2.Manifest:
    batch = item_pb2.ItemBatch(items=items)
    return item_pb2.Manifest(count=len(items), inline=batch.SerializeToString())


def batch_of(
    calls: list[pb.OpCall], tasks: list[pb.Task], kind: op_pb2.OpKind.ValueType = op_pb2.OP_KIND_ITEM
) -> pb.LeaseBatch:
    return pb.LeaseBatch(job_id="job", generation=1, kind=kind, calls=calls, tasks=tasks)


@dataclass
class Bench:
    """A runner in this process with a store of its own."""

    folder: Path
    registry: Registry = field(default_factory=Registry.load)

    def __post_init__(self) -> None:
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.photos = self.folder / "photos"
        self.photos.mkdir(exist_ok=True)
        self.store: ArtifactStore = open_store((self.folder / "store").as_uri())
        self.runner = ChainRunner(
            registry=self.registry, store=self.store, source_roots=(self.photos,), scratch_dir=self.scratch
        )

    def manifest(self, *items: item_pb2.Item) -> item_pb2.Manifest:
        return encode_items(items, self.store)

    def items(self, manifest: item_pb2.Manifest) -> list[item_pb2.Item]:
        return read_items(manifest, self.store)

    def photo(self, name: str, data: bytes) -> Path:
        path = self.photos / name
        path.write_bytes(data)
        return path

    def run(
        self,
        calls: list[pb.OpCall],
        *items: item_pb2.Item,
        kind: op_pb2.OpKind.ValueType = op_pb2.OP_KIND_ITEM,
        inputs: list[item_pb2.InputSlice] | None = None,
        **task: Any,
    ) -> pb.TaskResult:
        slices = [sliced(self.manifest(*items))] if inputs is None and items else inputs or []
        made = pb.Task(**{"shard": 7, "attempt": 1, "inputs": slices, **task})
        return self.runner.run_task(batch_of(calls, [made], kind), made)
