"""What this executor holds: granted tasks, and results that no scheduler has acknowledged yet."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pixloom.v1 import executor_pb2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["HeldLease", "LeaseBook"]


@dataclass(slots=True)
class HeldLease:
    """One grant.

    Attributes:
        token: What proves it.
        batch: The dispatch, with the granted tasks only.
        granted: Shard and attempt of all tasks as granted; the token covers them.
        running: Shards without a result.
        unacknowledged: Shards whose results were not acknowledged.
        siblings: Those of its tasks that are siblings, by stage, which stands in for the shard.
    """

    token: bytes
    batch: executor_pb2.LeaseBatch
    granted: tuple[tuple[int, int], ...]
    running: set[int]
    unacknowledged: set[int] = field(default_factory=set)
    siblings: dict[int, executor_pb2.SiblingTask] = field(init=False)

    def __post_init__(self) -> None:
        self.siblings = {sibling.stage: sibling for sibling in self.batch.siblings}

    def as_message(self) -> executor_pb2.Lease:
        """Return the lease as it is announced."""
        return executor_pb2.Lease(
            lease_token=self.token,
            job_id=self.batch.job_id,
            generation=self.batch.generation,
            stage=self.batch.stage,
            tasks=[executor_pb2.TaskKey(shard=shard, attempt=attempt) for shard, attempt in self.granted],
            held=sorted(self.running | self.unacknowledged),
            siblings=bool(self.siblings),
        )


class LeaseBook:
    """Leases by token, and reports by number until they are acknowledged."""

    def __init__(self) -> None:
        self._leases: dict[bytes, HeldLease] = {}
        self._reports: dict[int, executor_pb2.Report] = {}
        self._next_report = 1
        self.unacknowledged_results = 0
        self.unacknowledged_bytes = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._leases)

    def hold(self, lease: HeldLease) -> None:
        """Take in a grant."""
        self._leases[lease.token] = lease
        self._is_empty.clear()

    async def wait_until_empty(self) -> None:
        """Wait until nothing is held: everything granted has ended or was given back, every result is durable."""
        await self._is_empty.wait()

    def get(self, token: bytes) -> HeldLease | None:
        """Return a lease, or None."""
        return self._leases.get(token)

    def partitions(self) -> set[int]:
        """Return the partitions of which something is held."""
        return {lease.batch.partition for lease in self._leases.values()}

    def partition_of(self, report_id: int) -> int | None:
        """Return the partition that a report without acknowledgement belongs to, or None."""
        report = self._reports.get(report_id)
        lease = self._leases.get(report.lease_token) if report is not None else None
        return lease.batch.partition if lease is not None else None

    def announced(self, partitions: Collection[int] | None = None) -> list[executor_pb2.Lease]:
        """Return the leases as they are announced, all of them or those of partitions."""
        return [
            lease.as_message()
            for lease in self._leases.values()
            if partitions is None or lease.batch.partition in partitions
        ]

    def let_go_since(self, announced: Iterable[executor_pb2.Lease]) -> list[executor_pb2.GiveBack]:
        """Return hand-backs of what was announced and is not held any more; what has ended since is no harm in them."""
        messages = []
        for said in announced:
            lease = self._leases.get(said.lease_token)
            held = lease.running | lease.unacknowledged if lease is not None else set()
            gone = [shard for shard in said.held if shard not in held]
            if gone:
                messages.append(
                    executor_pb2.GiveBack(
                        lease_token=said.lease_token,
                        job_id=said.job_id,
                        generation=said.generation,
                        stage=said.stage,
                        shards=gone,
                    )
                )
        return messages

    def report(
        self,
        lease: HeldLease,
        results: Iterable[executor_pb2.TaskResult],
        ordinary: executor_pb2.OrdinaryResults | None = None,
    ) -> executor_pb2.Report:
        """Make a report of results and keep it until it is acknowledged."""
        report = executor_pb2.Report(
            report_id=self._next_report,
            lease_token=lease.token,
            job_id=lease.batch.job_id,
            generation=lease.batch.generation,
            stage=lease.batch.stage,
            results=results,
            ordinary=ordinary,
        )
        self._next_report += 1
        self._reports[report.report_id] = report
        shards = _shards(report)
        lease.running -= shards
        lease.unacknowledged |= shards
        self.unacknowledged_results += len(shards)
        self.unacknowledged_bytes += report.ByteSize()
        return report

    def unacknowledged(self, partitions: Collection[int]) -> list[executor_pb2.Report]:
        """Return the reports of partitions that are to be sent again, oldest first."""
        return [
            report
            for report in self._reports.values()
            if (lease := self._leases.get(report.lease_token)) is not None and lease.batch.partition in partitions
        ]

    def acknowledge(self, report_id: int) -> None:
        """Forget a report: its results are durable, or were refused for good."""
        report = self._reports.pop(report_id, None)
        if report is None:
            return
        shards = _shards(report)
        self.unacknowledged_results -= len(shards)
        self.unacknowledged_bytes -= report.ByteSize()
        lease = self._leases.get(report.lease_token)
        if lease is not None:
            lease.unacknowledged -= shards
            self._forget_if_done(lease)

    def give_back(self, lease: HeldLease, shards: Iterable[int]) -> executor_pb2.GiveBack:
        """Let go of tasks that were not started."""
        given = sorted(set(shards) & lease.running)
        lease.running -= set(given)
        self._forget_if_done(lease)
        return executor_pb2.GiveBack(
            lease_token=lease.token,
            job_id=lease.batch.job_id,
            generation=lease.batch.generation,
            stage=lease.batch.stage,
            shards=given,
        )

    def drop(self, token: bytes) -> list[int]:
        """Forget a lease that is not valid any more, with everything reported of it; return the reports forgotten."""
        self._forget(token)
        dropped = [number for number, report in self._reports.items() if report.lease_token == token]
        for report_id in dropped:
            self.acknowledge(report_id)
        return dropped

    def _forget_if_done(self, lease: HeldLease) -> None:
        if not lease.running and not lease.unacknowledged:
            self._forget(lease.token)

    def _forget(self, token: bytes) -> None:
        self._leases.pop(token, None)
        if not self._leases:
            self._is_empty.set()


def _shards(report: executor_pb2.Report) -> set[int]:
    shards = set(report.ordinary.shards)
    shards.update(result.shard for result in report.results)
    return shards
