"""The framing of PostgreSQL's protocol, as far as it takes to cut a connection at a commit.

The first message of a client has a length and no type (StartupMessage); each later one has a type of one byte and a
length that counts itself (PostgreSQL manual, "Message Flow" and "Message Formats"). asyncpg begins and ends a
transaction with a simple query: type `Q` and the text `BEGIN;` or `COMMIT;`. A statement that is prepared (`P`: its name
and its text) and bound (`B`: the name of a portal, then that of the statement) outside a transaction commits by itself.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.faults.proxy import Cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CommitCutter", "MessageSplitter", "Moment"]


class Moment(StrEnum):
    """When a commit is cut off."""

    BEFORE = "before"  # the server never hears of it and rolls back
    WITHIN = "within"  # half of the message arrives: the server rolls back
    AFTER = "after"  # the server commits, and its answer is lost


class MessageSplitter:
    """Splits what one client sends into messages, and keeps what is incomplete for the next call."""

    def __init__(self) -> None:
        self._pending = b""
        self._started = False

    def split(self, data: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Yield the messages that end in `data`: type (0 for the first), body, and the index in `data` where each begins.

        The index is negative if the message began in earlier data.
        """
        at = -len(self._pending)
        buffer = self._pending + data
        place = 0
        while True:
            head = 1 if self._started else 0
            if len(buffer) - place < head + 4:
                break
            (length,) = struct.unpack_from("!I", buffer, place + head)
            if len(buffer) - place < head + length:
                break
            kind = buffer[place] if self._started else 0
            yield kind, buffer[place + head + 4 : place + head + length], at + place
            # After an SSLRequest or GSSENCRequest (PostgreSQL manual) the start-up message is still to come.
            code = struct.unpack_from("!I", buffer, place + 4)[0] if not self._started and length == 8 else 0
            self._started = self._started or code not in (80877103, 80877104)
            place += head + length
        self._pending = buffer[place:]


class CommitCutter:
    """Cuts the connections of a client at their commits.

    Args:
        decide: Called at each commit; returns when to cut, or None to let it pass.
        alone: Text of the statements that count as commits where they are bound outside a transaction.
    """

    def __init__(self, decide: Callable[[], Moment | None], *, alone: bytes = b"SET commit_seq") -> None:
        self._decide = decide
        self._alone = alone
        self._names: set[bytes] = set()
        self._is_inside = False
        self._splitter = MessageSplitter()

    def client_sent(self, data: bytes) -> None:
        """Cut at a commit that is to be cut."""
        for kind, body, begin in self._splitter.split(data):
            if not self._is_commit(kind, body):
                continue
            moment = self._decide()
            before = data[: max(begin, 0)]
            if moment is Moment.BEFORE:
                raise Cut(before)
            if moment is Moment.WITHIN:
                raise Cut(data[: max(begin, 0) + 3])
            if moment is Moment.AFTER:
                raise Cut(data, await_answer=True)

    def _is_commit(self, kind: int, body: bytes) -> bool:
        match chr(kind):
            case "Q":
                word = body.upper()
                is_commit = word.startswith(b"COMMIT")
                if is_commit or word.startswith((b"BEGIN", b"ROLLBACK")):
                    self._is_inside = word.startswith(b"BEGIN")
                return is_commit
            case "P":
                name, _, text = body.partition(b"\0")
                if self._alone in text:
                    self._names.add(name)
            case "B":
                return not self._is_inside and body.split(b"\0", 2)[1] in self._names
        return False
