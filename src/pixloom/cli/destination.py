"""The folder for outputs, checked before anything runs: a job of hours must not end at a door that was always shut."""

from __future__ import annotations

import errno
import tempfile
from typing import TYPE_CHECKING

from pixloom.errors import InvalidError, MachineError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["require_writable"]


def require_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; one that is missing is not made yet.

    Raises:
        InvalidError: If there is a file in its way, or it may not be written to.
        MachineError: If there is no room on its disk.
    """
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not place.is_dir():
        raise InvalidError(f"{place} is no folder, so outputs cannot be written to {folder}. Name another with --out.")
    try:
        # Permissions do not tell of read-only disks, and root has them all: so it is tried.
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"pixloom")
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise MachineError(
                f"Outputs cannot be written to {folder}: there is no room. Free some, or name another with --out."
            ) from error
        raise InvalidError(
            f"Outputs cannot be written to {folder}: {error.strerror} ({place}). Change that, or name another folder "
            "with --out."
        ) from error
