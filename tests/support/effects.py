"""What happens outside of a replica, for tests in which nothing does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pixloom_scheduler.core.changes import Change
    from pixloom_scheduler.live import LiveJob

__all__ = ["NoEffects"]


class NoEffects:
    """Effects that nobody sees; tests note what they want to see of them."""

    def committed(self, live: LiveJob, changes: list[Change]) -> None:
        """Do nothing."""

    def resumed(self, live: LiveJob) -> None:
        """Do nothing."""

    def dropped(self, jobs: list[LiveJob]) -> None:
        """Do nothing."""

    def settled(self) -> None:
        """Do nothing."""

    def served_pools(self) -> frozenset[str]:
        """Return none."""
        return frozenset()
