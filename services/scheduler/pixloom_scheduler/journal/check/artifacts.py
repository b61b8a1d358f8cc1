"""The artifacts that accepted results name: each must be in the store, with the bytes that its digest says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from pixloom.artifacts.manifest import read_items
from pixloom.errors import InternalError, NotFoundError
from pixloom.v1 import executor_pb2
from pixloom_scheduler.journal.check.audit import RULES
from pixloom_scheduler.journal.check.findings import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixloom.artifacts.store import ArtifactStore
    from pixloom.v1 import item_pb2
    from pixloom_scheduler.journal.check.findings import Findings

__all__ = ["ArtifactAudit"]

RULE: Final = "every artifact that a result names is in the store with that hash"
LISTED: Final = "a result lists the items that passed, as many as it counts"


class ArtifactAudit:
    """Reads every artifact once, whoever names it.

    Args:
        store: The object store.
        findings: Counts the artifacts.
        report: Takes the violations.
    """

    def __init__(self, store: ArtifactStore, *, findings: Findings, report: Callable[[Violation], None]) -> None:
        self._store = store
        self._findings = findings
        self._report = report
        self._seen: set[bytes] = set()

    async def check(self, job: str, where: str, payload: bytes | None, value: object, *, passed: int) -> None:
        """Read what one result names.

        Args:
            job: The job.
            where: Which of its rows.
            payload: Outputs and rejects, a serialised `TaskResult`, or None.
            value: Its value, which may be a file.
            passed: Number of items that passed the last node, as the row has it.
        """
        try:
            result = executor_pb2.TaskResult.FromString(payload or b"")
        except DecodeError:
            self._report(Violation(RULES["readable"], job, where, "outputs and rejects in its payload cannot be read"))
            return
        listed = result.output.count
        if listed != passed:
            self._report(Violation(LISTED, job, where, f"its output lists {listed} items, and {passed} passed"))
        for problem in await asyncio.to_thread(lambda: list(self._problems(result, value))):
            self._report(Violation(RULE, job, where, problem))

    def _problems(self, result: executor_pb2.TaskResult, value: object) -> Iterator[str]:
        if isinstance(value, dict) and isinstance(value.get("$artifact"), dict):
            yield from self._read(str(value["$artifact"].get("sha256", "")))
        for manifest in (result.output, result.rejects, *(kept.items for kept in result.kept)):
            yield from self._manifest(manifest)

    def _manifest(self, manifest: item_pb2.Manifest) -> Iterator[str]:
        if manifest.WhichOneof("content") == "carried":
            return  # its items are those of other results
        try:
            items = read_items(manifest, self._store)
        except (NotFoundError, InternalError) as error:
            yield str(error)
            return
        for item in items:
            if item.uri.startswith("cas:"):
                yield from self._read(item.uri.removeprefix("cas:"))

    def _read(self, sha256: str) -> Iterator[str]:
        try:
            digest = bytes.fromhex(sha256)
            if digest in self._seen:
                return
            self._seen.add(digest)
            self._findings.artifacts += 1
            self._store.get(sha256)
        except (NotFoundError, InternalError) as error:
            yield str(error)
        except ValueError:
            yield f"{sha256[:80]!r} is no digest"
