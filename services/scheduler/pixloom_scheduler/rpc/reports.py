"""Reports of executors, from the moment one is read until it is acknowledged.

A report is answered when the commit that holds its results is durable; results that do not belong to a lease of its
executor are refused and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.plan import StageKind
from pixloom.v1 import executor_pb2
from pixloom_scheduler.core.changes import AttemptEnded, Change
from pixloom_scheduler.core.events import SiblingsReported, TasksReported
from pixloom_scheduler.crash_points import reach
from pixloom_scheduler.rpc.results import is_unambiguous, outputs_of, read_report, read_siblings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from pixloom_scheduler.costs import CostModel
    from pixloom_scheduler.executors import ExecutorSession
    from pixloom_scheduler.inputs import OutputCache
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.partitions import Partitions
    from pixloom_scheduler.replica import Replica

__all__ = ["Reports"]


class Reports:
    """Takes reports and acknowledges them.

    Args:
        replica: Owner of the jobs.
        partitions: Who owns what.
        outputs: Keeps for other stages what was reported.
        costs: Learns from reports what ops take.
    """

    def __init__(self, *, replica: Replica, partitions: Partitions, outputs: OutputCache, costs: CostModel) -> None:
        self._replica = replica
        self._partitions = partitions
        self._outputs = outputs
        self._costs = costs

    def take(self, session: ExecutorSession, report: executor_pb2.Report, open_reports: asyncio.Semaphore) -> None:
        """Take a report; `open_reports` is released when it was answered, or never will be."""
        if self._partitions.is_elsewhere(report.job_id):
            # The executor keeps it for the owner.
            open_reports.release()
            ack = executor_pb2.ReportAck(report_id=report.report_id, elsewhere=True)
            session.outbox.put_nowait(executor_pb2.SessionResponse(report_ack=ack))
            return
        if self._partitions.loading.is_loading(report.job_id):
            self._partitions.loading.when_loaded(report.job_id, lambda: self.take(session, report, open_reports))
            return
        known = session.holdings.leases.get(report.lease_token)
        live = self._replica.find(report.job_id)
        if (
            known is None
            or live is None
            or known.job_id != report.job_id
            or report.generation != live.run.generation
            or not 0 <= report.stage < len(live.run.stages)
            or not known.may_be_of(live.run, report.stage)
        ):
            if known is not None and known.job_id == report.job_id and (live is None or known.is_over(live.run)):
                session.holdings.let_go(report.lease_token)
            self._acknowledge(session, report, frozenset(), open_reports)
            return
        event: TasksReported | SiblingsReported
        if known.siblings:
            event = SiblingsReported(read_siblings(live.run.stages, known.siblings, report))
        else:
            event = TasksReported(known.number, read_report(live.run.stages[report.stage], report))
        session.holdings.done(report.lease_token, len(event.results))
        future = self._replica.report(report.job_id, event)
        siblings = known.siblings
        future.add_done_callback(
            lambda done: self._reported(session, live, report, done, open_reports, siblings=siblings)
        )

    def _reported(
        self,
        session: ExecutorSession,
        live: LiveJob,
        report: executor_pb2.Report,
        done: asyncio.Future[list[Change]],
        open_reports: asyncio.Semaphore,
        *,
        siblings: Mapping[int, int],
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            # Nothing is durable: the executor keeps the results and sends them again.
            open_reports.release()
            return
        stages = siblings or (report.stage,)
        ends = [change for change in done.result() if isinstance(change, AttemptEnded) and change.stage in stages]
        if ends and is_unambiguous(report):
            if not siblings:
                self._remember(live, report, ends)
            self._costs.learn(live.run, report)
        known = session.holdings.leases.get(report.lease_token)
        if known is not None and known.is_over(live.run):
            session.holdings.let_go(report.lease_token)
        accepted = frozenset(change.stage if siblings else change.shard for change in ends)
        self._acknowledge(session, report, accepted, open_reports)

    def _remember(self, live: LiveJob, report: executor_pb2.Report, ends: list[AttemptEnded]) -> None:
        """Keep for the stages behind it what a report gave, as far as it was accepted."""
        given = frozenset(change.shard for change in ends if change.items_out)
        stages = live.run.stages
        readers = {stages[consumer].plan.kind for consumer, _ in stages[report.stage].consumers}
        if StageKind.MAPPED in readers:
            for shard, output in outputs_of(report):
                if shard in given:
                    self._outputs.put((report.job_id, report.generation, report.stage, shard), output)
        if StageKind.WHOLE in readers:
            ended = sum(change.ends_shard for change in ends)
            self._outputs.gathered.add(live.run, report, ended=ended, given=given)

    @staticmethod
    def _acknowledge(
        session: ExecutorSession,
        report: executor_pb2.Report,
        accepted: frozenset[int],
        open_reports: asyncio.Semaphore,
    ) -> None:
        reach("acknowledge.before")
        open_reports.release()
        reported = [*report.ordinary.shards, *(result.shard for result in report.results)]
        refused = [shard for shard in reported if shard not in accepted]
        ack = executor_pb2.ReportAck(report_id=report.report_id, refused=refused)
        session.outbox.put_nowait(executor_pb2.SessionResponse(report_ack=ack))
