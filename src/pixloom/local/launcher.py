"""Become another program that ends when this one's parent ends.

Run as a file by a bare interpreter (`python -I -S launcher.py …`), so it imports nothing but the standard library
and costs a few milliseconds. Between fork and exec of a threaded parent little may be done safely; a program of its
own may do anything:

- On Linux it asks the kernel for a signal at the death of the thread that started it, so that even kill -9 of
  `pixloom up` leaves no server behind. The pids recorded in the data directory cover what this cannot.
- With `--in-namespace` it opens a user namespace in which root of this machine is the user 65534. PostgreSQL refuses to
  run as root; in the namespace it does not, owns the same files, and no permission of any folder has to change.
- With `--as-nobody` it becomes the real user 65534, for systems that refuse namespaces, and keeps one capability of
  root, to pass below folders that only root may enter: again no permission has to change.

Arguments: death signal, parent pid, `--as-is` or one of the above, program, its arguments.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
"""The user and group `nobody` of Linux, overflow id of user namespaces (user_namespaces(7))."""

REFUSED = 77
"""Exit code when the kernel refuses the identity (EX_NOPERM of sysexits.h)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h, as those below
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_CAP_VERSION = 0x20080522  # linux/capability.h, as the next
_CAP_DAC_OVERRIDE = 1


def enter_namespace(libc: ctypes.CDLL) -> None:
    """Enter a user namespace in which this user and group are `NOBODY`.

    Raises:
        OSError: The kernel refuses user namespaces.
    """
    user, group = os.geteuid(), os.getegid()
    _call(libc.unshare, _CLONE_NEWUSER)
    # A group may only be mapped without privilege in the parent namespace once setgroups is denied.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")


def become_nobody(libc: ctypes.CDLL) -> None:
    """Become `NOBODY`, with no capability but to read and write whatever the permissions say.

    Raises:
        OSError: This root may not change its user, or has not that capability itself.
    """
    _call(libc.prctl, _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION, 0)
    only = 1 << _CAP_DAC_OVERRIDE
    # Effective, permitted and inheritable of the lower 32 capabilities, then of the upper ones (capset(2)).
    _call(libc.capset, header, (ctypes.c_uint32 * 6)(only, only, only, 0, 0, 0))
    _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main(arguments: list[str]) -> None:
    """Do what the arguments say and replace this process; see the module's docstring."""
    death_signal, parent, identity, program, *rest = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            if identity == "--in-namespace":
                enter_namespace(libc)
            elif identity == "--as-nobody":
                become_nobody(libc)
        except OSError as error:
            sys.stderr.write(f"{identity} was refused: {error.strerror}\n")
            sys.exit(REFUSED)
        # Last: a change of credentials clears the setting.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != int(parent):
            sys.exit(0)  # the parent died before the kernel was told
    elif identity != "--as-is":
        sys.stderr.write(f"{identity} was refused: only Linux has it\n")
        sys.exit(REFUSED)
    os.execv(program, [program, *rest])  # noqa: S606 - the caller names the program


if __name__ == "__main__":
    main(sys.argv[1:])
