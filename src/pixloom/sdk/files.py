"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING

from pixloom.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["saved_to"]


@contextlib.contextmanager
def saved_to(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write to that appears at `path` when the block ends well; parent folders are made.

    Raises:
        MachineError: If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be written: {error.strerror or error}. Is there room on the disk?"
        ) from error
    finally:
        # What could not even be made, as below a file, cannot be removed either; the error that says so is on its way.
        with contextlib.suppress(OSError):
            partial.unlink()
