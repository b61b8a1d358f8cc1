"""How a watcher comes back after its stream broke: where it resumes, and when it gives up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pixloom.errors import DeadlineError, OverloadedError, UnavailableError
from pixloom.resources import Event, Snapshot
from pixloom.v1 import job_pb2

if TYPE_CHECKING:
    from pixloom.errors import PixloomError

__all__ = ["NO_EVENTS", "Resumption", "Update"]

Update = Event | Snapshot

NO_EVENTS: Final = 2**63 - 1
"""In place of the number of the last event seen: who merely waits need not be sent every one of them."""

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 2.0


class Resumption:
    """Follows one watched job over several streams.

    Args:
        job_id: Id of the job.
        after_seq: Number of the last event seen.
        give_up_after_s: Seconds of failures in a row after which the error is passed on.
    """

    def __init__(self, job_id: str, *, after_seq: int, give_up_after_s: float = 60.0) -> None:
        self._job_id = job_id
        self._after_seq = after_seq
        self._give_up_after_s = give_up_after_s
        self._waited_s = 0.0
        self._delay_s = _FIRST_DELAY_S
        self.is_over = False

    def request(self) -> job_pb2.WatchJobRequest:
        """Return the request for the next stream."""
        return job_pb2.WatchJobRequest(id=self._job_id, after_seq=self._after_seq)

    def accept(self, response: job_pb2.WatchJobResponse) -> Update | None:
        """Return what a message says, or None if it was seen before."""
        self._waited_s, self._delay_s = 0.0, _FIRST_DELAY_S
        match response.WhichOneof("update"):
            case "event":
                event = Event.from_proto(response.event)
                if event.seq <= self._after_seq:
                    return None
                self._after_seq = event.seq
                return event
            case "snapshot":
                snapshot = Snapshot.from_proto(response.snapshot)
                self.is_over = snapshot.job.state.is_final
                return snapshot
            case _:
                return None

    def delay_after(self, error: PixloomError | None) -> float:
        """Return the seconds to wait before the next stream.

        Args:
            error: Why the stream broke; None if the server ended it before the job did.

        Raises:
            PixloomError: The error itself, if trying again does not help or has been tried for too long.
        """
        if error is not None and not isinstance(error, UnavailableError | OverloadedError | DeadlineError):
            raise error
        if self._waited_s >= self._give_up_after_s:
            raise error or UnavailableError(
                f"The server ends the stream of job {self._job_id} again and again. Try later."
            )
        delay_s = self._delay_s
        self._waited_s += delay_s
        self._delay_s = min(delay_s * 2, _MAX_DELAY_S)
        return delay_s
