"""Whether a child that was killed may have been killed for want of memory.

The kernel tells nobody whom it ended, but it counts: `oom_kill` in /proc/vmstat are the processes that it has ended for
want of memory since the machine was started, those of containers at their limits among them. Where that is 0, it was
somebody else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["cause_of_kill", "count_oom_kills"]

_VMSTAT: Final = Path("/proc/vmstat")  # proc_vmstat(5); `oom_kill` since Linux 4.13


def count_oom_kills(vmstat: Path = _VMSTAT) -> int | None:
    """Return how many processes the kernel has ended for want of memory; None where it does not say."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        name, _, number = line.partition(" ")
        if name == "oom_kill" and number.isdigit():
            return int(number)
    return None


def cause_of_kill(oom_kills: int | None) -> tuple[str, str]:
    """Return reason and detail of a child that somebody else ended by SIGKILL.

    Args:
        oom_kills: Processes that the kernel has ended for want of memory; None if that is not known.
    """
    if oom_kills == 0:
        return "CRASHED", "was killed from outside or had used up its processor time; memory was not the cause"
    return "OUT_OF_MEMORY", "was killed, most likely because the machine ran out of memory"
