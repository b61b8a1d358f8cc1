"""What a child gives up before it touches an image."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pixloom_executor.children.settings import ChildSettings

__all__ = ["die_with_parent", "limit_resources", "reset_signals"]

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def die_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when its parent dies; where it cannot, a closed pipe ends it later.

    Args:
        parent_pid: Process id of the parent; if it has died already, this process exits.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def reset_signals() -> None:
    """Leave Ctrl-C to the supervisor, which drains; everything else has its default effect."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def limit_resources(settings: ChildSettings) -> None:
    """Set the limits of this process; a limit that is lower already stays."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, settings.open_files)
    if settings.file_bytes:
        _lower(resource.RLIMIT_FSIZE, settings.file_bytes)
    if settings.cpu_s:
        _lower(resource.RLIMIT_CPU, settings.cpu_s)
    if settings.memory_bytes and sys.platform == "linux":
        _lower(resource.RLIMIT_AS, _address_space_bytes() + settings.memory_bytes)


def _lower(kind: int, limit: int) -> None:
    soft, hard = resource.getrlimit(kind)
    new = min(part for part in (limit, soft, hard) if part != resource.RLIM_INFINITY)
    resource.setrlimit(kind, (new, new))


def _address_space_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - no Path on the way to a child
        return int(file.read().split()[0]) * resource.getpagesize()
