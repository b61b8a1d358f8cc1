"""As whom PostgreSQL runs when we are root, which it refuses to be."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from pixloom.errors import MachineError
from pixloom.local import launcher
from pixloom.local.processes import Identity

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["choose_identity", "hand_over"]

_PROBE_S: Final = 60.0


def choose_identity() -> Identity:
    """Return as whom a program runs that refuses root; blocks for some milliseconds when we are root.

    Raises:
        MachineError: We are root, and the system offers no other identity, or is too busy to say so.
    """
    if os.geteuid() != 0:
        return Identity.AS_IS
    for identity in (Identity.IN_NAMESPACE, Identity.AS_NOBODY):
        words = [
            sys.executable,
            "-I",
            "-S",
            launcher.__file__,
            "0",
            str(os.getpid()),
            identity.value,
            "/bin/sh",
            "-c",
            ":",
        ]
        try:
            done = subprocess.run(words, capture_output=True, timeout=_PROBE_S, check=False)  # noqa: S603 - our own words
        except subprocess.TimeoutExpired as error:
            # Not the next identity: who owns the files must not depend on how busy the machine is.
            raise MachineError(
                f"Whether PostgreSQL can run here beside root was not known after {_PROBE_S:g} s, so busy is this machine. "
                "Try again when it is less so, or run pixloom as a normal user."
            ) from error
        if done.returncode == 0:
            return identity
    raise MachineError(
        "PostgreSQL does not run as root, and this system refuses both a user namespace that would hide root and a "
        "change of the user. Run pixloom as a normal user, or set PIXLOOM_DATABASE_URL to a PostgreSQL server."
    )


def hand_over(cluster: Path, identity: Identity) -> None:
    """Give the files of a cluster to whom it will run as, if they belong to the other; permissions stay.

    Args:
        cluster: An existing cluster directory, made under any identity of root.
        identity: As whom the server will run.
    """
    owner = launcher.NOBODY if identity is Identity.AS_NOBODY else os.geteuid()
    if identity is Identity.AS_IS or cluster.stat().st_uid == owner:
        return
    # The folder itself comes last: interrupted on the way, the next start begins again.
    for folder, names, files in os.walk(cluster, topdown=False):
        for name in (*names, *files):
            os.chown(os.path.join(folder, name), owner, owner, follow_symlinks=False)  # noqa: PTH118 - os.walk gives text
    os.chown(cluster, owner, owner)
