"""Tasks of a lease batch, run in this process.

A task never raises: whatever goes wrong becomes its result. An item that an op refuses is listed in `rejects`; only
what is not about an item, such as a store that does not answer, ends the task.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, overload

from pixloom.errors import InvalidError, PixloomError
from pixloom.sdk.op import Context, Filtered, Reject, Retry
from pixloom.v1 import executor_pb2 as pb
from pixloom.v1 import item_pb2, job_pb2, op_pb2
from pixloom_executor.binding import Binder, BoundCall
from pixloom_executor.inputs import InputReader
from pixloom_executor.item_chain import ItemChain, ItemOutcome, NodeFailed, Verdict
from pixloom_executor.marker import NO_MARKER, Marker
from pixloom_executor.opening import Opener
from pixloom_executor.ordinary import OrdinaryColumns, OrdinaryTask
from pixloom_executor.records import clean_text
from pixloom_executor.storing import RecordingStore
from pixloom_executor.tally import Tally
from pixloom_executor.whole import WholeRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pixloom.artifacts import ArtifactStore
    from pixloom_executor.probe import Limits
    from pixloom_executor.registry import Registry

__all__ = ["ChainRunner"]

_OK: Final = job_pb2.ATTEMPT_OUTCOME_OK
_FAILED: Final = job_pb2.ATTEMPT_OUTCOME_FAILED
_PARTIAL: Final = job_pb2.ATTEMPT_OUTCOME_PARTIAL
_LASTING: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_NO_VERDICTS: Final[Mapping[int, Verdict]] = MappingProxyType({})


class ChainRunner:
    """Runs tasks in this process.

    Args:
        registry: The ops.
        store: The artifact store; what is put is not durable before the digests taken are synced.
        source_roots: Folders below which sources may read.
        scratch_dir: Folder for temporary files of ops.
        marker: Takes note of what is going on.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        store: ArtifactStore,
        source_roots: Sequence[Path] = (),
        scratch_dir: Path | None = None,
        marker: Marker = NO_MARKER,
    ) -> None:
        self._store = RecordingStore(store)
        self._inputs = InputReader(store)
        self._opener = Opener(store=store, source_roots=tuple(source_roots))
        self._source_roots = tuple(source_roots)
        self._scratch_dir = scratch_dir or Path(tempfile.gettempdir())
        self._marker = marker
        self._loop = asyncio.Runner()
        self._binder = Binder(registry=registry, loop=self._loop)
        self._batch: pb.LeaseBatch | None = None
        self._calls: list[BoundCall] = []
        self._chain: ItemChain | None = None
        self._invalid: InvalidError | None = None
        self._siblings: dict[int, pb.SiblingTask] = {}
        self._params_json = b""

    def take_digests(self) -> set[str]:
        """Return the digests of the artifacts written since the last call; sync them before reporting."""
        return self._store.take_digests()

    def close(self) -> None:
        """End the loop that coroutines of ops ran in."""
        self._loop.close()

    @overload
    def run_task(
        self,
        batch: pb.LeaseBatch,
        task: pb.Task | OrdinaryTask,
        *,
        alone: Sequence[int] = (),
        verdicts: Mapping[int, Verdict] = _NO_VERDICTS,
        ordinary: None = None,
    ) -> pb.TaskResult: ...

    @overload
    def run_task(
        self,
        batch: pb.LeaseBatch,
        task: pb.Task | OrdinaryTask,
        *,
        alone: Sequence[int] = (),
        verdicts: Mapping[int, Verdict] = _NO_VERDICTS,
        ordinary: OrdinaryColumns | None,
    ) -> pb.TaskResult | None: ...

    def run_task(
        self,
        batch: pb.LeaseBatch,
        task: pb.Task | OrdinaryTask,
        *,
        alone: Sequence[int] = (),
        verdicts: Mapping[int, Verdict] = _NO_VERDICTS,
        ordinary: OrdinaryColumns | None = None,
    ) -> pb.TaskResult | None:
        """Run one task of a batch.

        Args:
            batch: The batch; its calls are bound once.
            task: The task, with its inputs in place.
            alone: Indexes of input items to run before all others.
            verdicts: Input items to reject without running them, by index.
            ordinary: Takes the result if it is an ordinary one.

        Returns:
            The result, with outcome OK, PARTIAL or FAILED; None if `ordinary` has taken it.
        """
        started_ns = time.time_ns()
        result: pb.TaskResult | None = None
        try:
            if batch.siblings:
                self._bind_sibling(batch, task.shard)
            else:
                self._bind(batch)
            self._prepare(task)
            if isinstance(task, OrdinaryTask) or (
                batch.kind == op_pb2.OP_KIND_ITEM and (task.inputs or task.inputs_paged)
            ):
                tally = self._run_items(task, alone, verdicts)
                if ordinary is not None and self._add(ordinary, task, tally, started_ns):
                    return None
                result = _result_of(task)
                tally.write(result, self._store)
            else:
                result = _result_of(task)
                self._run_whole(batch, task, result)
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # noqa: BLE001 - a task never takes the process down
            result = _result_of(task)
            _fail(result, error, self._calls)
        finally:
            self._clean(result)
        _stamp(result, started_ns, time.time_ns())
        return result

    def _bind(self, batch: pb.LeaseBatch) -> None:
        if self._batch is not batch:
            self._batch, self._calls, self._chain, self._invalid = batch, [], None, None
            try:
                self._calls = self._bound(batch, batch.calls)
            except InvalidError as error:
                self._invalid = error
        if self._invalid is not None:
            raise self._invalid

    def _bind_sibling(self, batch: pb.LeaseBatch, stage: int) -> None:
        """Let the only call of a batch of siblings stand for one of them; those behind each other may have the same params."""
        if self._batch is not batch:
            self._batch, self._calls, self._chain, self._invalid = batch, [], None, None
            self._siblings = {sibling.stage: sibling for sibling in batch.siblings}
        sibling, common = self._siblings[stage], batch.calls[0]
        params_json = sibling.params_json or common.params_json
        if not self._calls or params_json != self._params_json:
            call = pb.OpCall()
            call.CopyFrom(common)
            call.node, call.params_json = sibling.node, params_json
            self._calls = []
            self._calls = self._bound(batch, [call])
            self._params_json = params_json
        only = self._calls[0]
        only.node = only.context.node = sibling.node

    def _bound(self, batch: pb.LeaseBatch, calls: Iterable[pb.OpCall]) -> list[BoundCall]:
        return self._binder.bind(calls, lambda node, limits: self._context(batch.job_id, node, limits))

    def _context(self, job_id: str, node: str, limits: Limits) -> Context:
        return Context(
            scratch_dir=self._scratch_dir,
            source_roots=self._source_roots,
            store=self._store,
            job_id=job_id,
            node=node,
            open_bytes=lambda item: self._opener.open_bytes(item, limits),
            open_image=lambda item: self._opener.open_image(item.copy(), limits),
        )

    def _prepare(self, task: pb.Task | OrdinaryTask) -> None:
        last_attempt, first_ordinal = False, 0
        if not isinstance(task, OrdinaryTask):
            last_attempt, first_ordinal = task.last_attempt, task.first_ordinal
        for call in self._calls:
            context = call.context
            context.attempt = task.attempt
            context.last_attempt = last_attempt
            context.first_ordinal = first_ordinal
            if context.warnings:
                context.warnings = []

    def _run_items(self, task: pb.Task | OrdinaryTask, alone: Sequence[int], verdicts: Mapping[int, Verdict]) -> Tally:
        if isinstance(task, OrdinaryTask):
            records, last_attempt = self._inputs.read_run(task.source, task.offset, task.count), False
        else:
            records, last_attempt = self._inputs.read(task.inputs), task.last_attempt
        chain = self._chain
        if chain is None:
            chain = self._chain = ItemChain(
                calls=self._calls, opener=self._opener, store=self._store, marker=self._marker
            )

        def run(index: int) -> ItemOutcome:
            if verdicts and index in verdicts:
                return chain.reject(records[index], verdicts[index])
            return chain.run(index, records[index], last_attempt=last_attempt)

        first = {index: run(index) for index in alone}
        tally = Tally(self._calls)
        for index in range(len(records)):
            tally.add(index, first[index] if index in first else run(index))
        return tally

    def _add(self, ordinary: OrdinaryColumns, task: pb.Task | OrdinaryTask, tally: Tally, started_ns: int) -> bool:
        """Add the result of a task to the ordinary ones; return whether it is one."""
        if not tally.is_ordinary:
            return False
        for call in self._calls:
            if call.context.warnings:
                return False
        output = tally.output(self._store)
        if output.WhichOneof("content") != "inline":
            return False
        ended_ns = time.time_ns()
        ordinary.add(task, started_ns=started_ns, ended_ns=ended_ns, output=output, spent_ns=tally.spent_ns)
        return True

    def _run_whole(self, batch: pb.LeaseBatch, task: pb.Task, result: pb.TaskResult) -> None:
        run = WholeRun(calls=self._calls, inputs=self._inputs, store=self._store, marker=self._marker)
        outcome = run.run(task)
        result.outcome = _OK
        for call, spent_ns in zip(self._calls, outcome.spent or (), strict=False):
            counts = result.counts.add(node=call.node)
            counts.elapsed.FromNanoseconds(spent_ns)
        last = result.counts[-1]
        if outcome.items is not None:
            last.ok = len(outcome.items)
            result.output.CopyFrom(self._store.put_items(outcome.items))
        elif batch.kind == op_pb2.OP_KIND_ITEM:
            last.ok = 1
        if outcome.rejects:
            for item in outcome.rejects:
                by_reason = last.filtered if item.state == item_pb2.ITEM_STATE_FILTERED else last.rejected
                by_reason[item.reason] += 1
            result.rejects.CopyFrom(self._store.put_items(outcome.rejects))
        result.value_json = outcome.value_json
        if outcome.artifact is not None:
            result.artifact.CopyFrom(outcome.artifact)
        result.next_cursor = outcome.next_cursor
        result.end = outcome.end

    def _clean(self, result: pb.TaskResult | None) -> None:
        for call in self._calls:
            if call.context.warnings and result is not None:
                result.warnings.extend(clean_text(str(text), 1024) for text in call.context.warnings[:100])
            if call.definition.signature.context is not None:
                _empty(self._scratch_dir)


def _result_of(task: pb.Task | OrdinaryTask) -> pb.TaskResult:
    return pb.TaskResult(shard=task.shard, attempt=task.attempt)


def _fail(result: pb.TaskResult, error: Exception, calls: Sequence[BoundCall]) -> None:
    """Write what an error that is not about an item means for the task."""
    node = f"node {calls[0].node}: " if calls else ""
    retryable, after_s = False, None
    match error:
        case NodeFailed():
            reason, detail = error.reason, error.detail
        case Retry():
            reason, detail, retryable, after_s = error.reason, node + error.detail, True, error.after_s
        case Reject() | Filtered():
            reason, detail = error.reason, node + error.detail
        case PixloomError():
            reason = error.metadata.get("reason", error.reason)
            detail, after_s = str(error), error.retry_after_s
            retryable = error.wire.retryable or error.reason in ("ENVIRONMENT", "INTERNAL")
        case OSError():
            reason, detail = "READ_ERROR", f"{node}{type(error).__name__}: {error}"
            # A disk or a network drive may be well again; what is not there, or not allowed, stays so.
            retryable = not isinstance(error, _LASTING)
        case _:
            reason, detail = "OP_ERROR", f"{node}{type(error).__name__}: {error}"
    result.outcome = _FAILED
    result.reason = clean_text(reason, 128)
    result.detail = clean_text(detail, 1024)
    result.retryable = retryable
    if after_s is not None:
        result.retry_after.FromNanoseconds(int(after_s * 1e9))


def _stamp(result: pb.TaskResult, started_ns: int, ended_ns: int) -> None:
    start, end = result.start_time, result.end_time
    start.seconds, start.nanos = divmod(started_ns, 1_000_000_000)
    end.seconds, end.nanos = divmod(ended_ns, 1_000_000_000)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
