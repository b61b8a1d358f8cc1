"""Who listens on a port of this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pixloom.local.processes import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixloom.local.processes import ProcessIdentity

__all__ = ["holder_of"]

_LISTEN: Final = "0A"  # proc_net_tcp(5): TCP_LISTEN


def holder_of(port: int) -> ProcessIdentity | None:
    """Return a process that listens on a TCP port, or None if there is none or we may not know."""
    pids = _pids_linux(port) if sys.platform == "linux" else _pids_lsof(port)
    return next((found for pid in pids if (found := find(pid)) is not None), None)


def _pids_linux(port: int) -> Iterator[int]:
    inodes = {f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _listening(Path("/proc/net") / name, port)}
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        # Processes end while we look, and those of others are not ours to look at.
        with contextlib.suppress(OSError):
            if any(str(entry.readlink()) in inodes for entry in folder.iterdir()):
                yield int(folder.parent.name)


def _listening(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]


def _pids_lsof(port: int) -> Iterator[int]:
    program = shutil.which("lsof")
    if program is not None:
        words = [program, "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - our own words
        yield from (int(word) for word in done.stdout.split() if word.isdigit())
