"""The two streams: results go to the standard output, everything said to people on the way to the error stream."""

from __future__ import annotations

import sys

__all__ = ["put", "say"]


def put(line: str = "") -> None:
    """Write a line of a result to the standard output."""
    sys.stdout.write(line + "\n")


def say(line: str = "") -> None:
    """Write a line for people to the standard error stream, at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
