"""What is started and stopped, for `async with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Startable"]


class Startable(ABC):
    """Runs from `start` to `stop`, or for as long as an `async with` lasts."""

    @abstractmethod
    async def start(self) -> None:
        """Start; whatever was begun has ended again if that fails."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop; does nothing when it is stopped."""

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()
