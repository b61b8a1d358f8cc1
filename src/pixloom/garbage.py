"""How often the cycle collector looks through a service: rarely, as messages and records have no cycles."""

from __future__ import annotations

import gc

__all__ = ["collect_rarely"]


def collect_rarely() -> None:
    """Leave out of collections what is there now, modules above all, and make collections rarer; once, at the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
