"""Become another program that ends when this one's parent ends.

Run as a file by a bare interpreter (`python -I -S launcher.py …`), so it imports nothing but the standard library
and costs a few milliseconds. Between fork and exec of a threaded parent little may be done safely; a program of its
own may do anything:

- On Linux it asks the kernel for a signal at the death of the thread that started it, so that even kill -9 of
  `pixloom up` leaves no server behind. The pids recorded in the data directory cover what this cannot.
- With `--as-nobody` it opens a user namespace in which root of this machine is the user 65534. PostgreSQL refuses to
  run as root; in the namespace it does not, owns the same files, and no permission of any folder has to change.

Arguments: death signal, parent pid, `--as-nobody` or `--as-is`, program, its arguments.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NOBODY = 65534
"""The user and group `nobody` of Linux, overflow id of user namespaces (user_namespaces(7))."""

REFUSED = 77
"""Exit code when the kernel refuses a user namespace (EX_NOPERM of sysexits.h)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CLONE_NEWUSER = 0x10000000  # linux/sched.h


def become_nobody(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this user and group are `NOBODY`.

    Raises:
        OSError: The kernel refuses user namespaces.
    """
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    # A group may only be mapped without privilege in the parent namespace once setgroups is denied.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")


def main(arguments: list[str]) -> None:
    """Do what the arguments say and replace this process; see the module's docstring."""
    death_signal, parent, identity, program, *rest = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if identity == "--as-nobody":
            try:
                become_nobody(libc)
            except OSError as error:
                sys.stderr.write(f"user namespace refused: {error.strerror}\n")
                sys.exit(REFUSED)
        # After the namespace: a change of credentials clears the setting.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent):
            sys.exit(0)  # the parent died before the kernel was told
    elif identity == "--as-nobody":
        sys.stderr.write("user namespace refused: this system has none\n")
        sys.exit(REFUSED)
    os.execv(program, [program, *rest])  # noqa: S606 - the caller names the program


if __name__ == "__main__":
    main(sys.argv[1:])
