"""The exit codes."""

from __future__ import annotations

from enum import IntEnum

from pixloom.errors import CallerError, PeerError, PixloomError, StateConflictError

__all__ = ["ExitCode", "exit_code_of"]


class ExitCode(IntEnum):
    """What the process returns."""

    OK = 0
    FAILED = 1  # the job failed, its state does not allow this, or the machine is at fault
    INVALID = 2  # usage or invalid workflow
    UNREACHABLE = 3
    INTERRUPTED = 130  # 128 + SIGINT, as shells do


def exit_code_of(error: PixloomError) -> ExitCode:
    """Return the exit code for an error: by whose fault it is.

    A verb that the state of a job does not allow was no wrong use: it is about the job.
    """
    match error:
        case StateConflictError():
            return ExitCode.FAILED
        case PeerError():
            return ExitCode.UNREACHABLE
        case CallerError():
            return ExitCode.INVALID
        case _:
            return ExitCode.FAILED
