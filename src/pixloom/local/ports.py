"""Free ports for the parts of a stack, held so that nobody else is given them while a part is down.

Every program that asks for any port, and every connection that goes out, is given one of the ports that are free at
that moment. Of a part that has not started yet, or was killed and starts again, nobody listens on its port; were it
free, it could be somebody else's by the time the part wants it, and the part could not start under its address. A
socket that is bound and does not listen keeps it: with `SO_REUSEADDR` on both, Linux lets another one listen beside it,
and gives the port to nobody who asks for any.
"""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["HeldPorts"]

_HOST: Final = "127.0.0.1"


class HeldPorts:
    """Ports of 127.0.0.1 that are kept for those who were told of them, until `release` or the end of this process."""

    __slots__ = ("_sockets",)

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, count: int) -> list[int]:
        """Choose free ports, each another one, and hold them.

        Where the system lets nobody listen beside a bound socket, they are chosen and not held.
        """
        made = [_bound(0) for _ in range(count)]
        ports = [int(each.getsockname()[1]) for each in made]
        for each, port in zip(made, ports, strict=True):
            if _may_be_listened_on(port):
                self._sockets.append(each)
            else:
                each.close()
        return ports

    def release(self) -> None:
        """Let go of all; does nothing when none is held."""
        held, self._sockets = self._sockets, []
        for each in held:
            each.close()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((_HOST, port))
    except BaseException:
        made.close()
        raise
    return made


def _may_be_listened_on(port: int) -> bool:
    """Return whether a service can listen on a port that is held."""
    try:
        with _bound(port) as service:
            service.listen()
    except OSError:
        return False
    return True
