"""Starts jobs that were accepted without being started, with the params they were accepted with or with others.

Other params mean another plan, which is made off the loop. Params and plan become durable together with the start, in
one transaction, so there is no moment at which a job runs by one and shows the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from pixloom.errors import NotFoundError, StateConflictError
from pixloom_scheduler.core.changes import JobStarted, NewPlan
from pixloom_scheduler.core.events import StartRequested
from pixloom_scheduler.core.states import JobState

if TYPE_CHECKING:
    from datetime import date

    from pixloom_scheduler.journal.reader import Reader
    from pixloom_scheduler.live import LiveJob
    from pixloom_scheduler.planning import Planning
    from pixloom_scheduler.replica import Replica

__all__ = ["Starts"]


class Starts:
    """Gives jobs their params and starts them."""

    def __init__(self, *, replica: Replica, reader: Reader, planning: Planning) -> None:
        self._replica = replica
        self._reader = reader
        self._planning = planning

    async def start(self, live: LiveJob, given: dict[str, Any], *, request: str = "") -> None:
        """Start a job; one that runs with these very params already, or that this call started, is left alone.

        Args:
            live: The job.
            given: Params, merged over those it was accepted with.
            request: Id of the call; may be empty.

        Raises:
            InvalidError: If the params do not fit the workflow or some are missing; the job stays PENDING.
            StateConflictError: If the job runs with other params, or has ended.
        """
        event = StartRequested()
        if live.run.state is JobState.PENDING:
            event = await self._prepared(live, given)
        header, run = live.header, live.run
        try:
            changes = await self._replica.command(header.id, replace(event, request=request))
        except StateConflictError:
            stands = JobState.CANCELLED if run.cancelling is not None else run.state
            if not await self.took_effect(
                header.id, header.day, params_json=header.params_json, state=stands, given=given, request=request
            ):
                raise
            return
        if any(isinstance(change, JobStarted) for change in changes):
            return
        before = orjson.loads(live.header.params_json)
        if _canonical({**before, **given}) != _canonical(before):
            state = str(live.run.state)
            raise StateConflictError(
                f"job {live.header.id} is {state} with other params; start a new job with `rerun`",
                metadata={"state": state},
            )

    async def took_effect(
        self, job_id: str, day: date, *, params_json: bytes, state: str, given: dict[str, Any], request: str
    ) -> bool:
        """Return whether a start that is asked for has happened already.

        Args:
            job_id: The job.
            day: Day on which it was created.
            params_json: The params it runs or ran with.
            state: Its state; CANCELLED as well while it is being cancelled.
            given: Params, merged over those it was accepted with.
            request: Id of the call; may be empty.
        """
        before = orjson.loads(params_json)
        if _canonical({**before, **given}) != _canonical(before):
            return False
        by = await self._reader.start_request(day, job_id)
        return by is not None and (state != JobState.CANCELLED or bool(request and by == request))

    async def _prepared(self, live: LiveJob, given: dict[str, Any]) -> StartRequested:
        document = await self._reader.spec(live.header.id)
        if document is None:
            raise NotFoundError(f"there is no job {live.header.id}; `pixloom list` shows those there are")
        before = orjson.loads(live.header.params_json)
        planned = await self._planning.of(orjson.loads(document), {**before, **given})
        if _canonical(orjson.loads(planned.params_json)) == _canonical(before):
            return StartRequested()
        return StartRequested(NewPlan(planned.plan, planned.plan_json, planned.params_json))


def _canonical(params: dict[str, Any]) -> bytes:
    """Return params so that equal ones are equal, and 1, 1.0 and true are not."""
    return orjson.dumps(params, option=orjson.OPT_SORT_KEYS)
