"""Whether a NATS server answers at an address, found out by its own few lines of protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pixloom.errors import MachineError

__all__ = ["nats_greeting"]

PATIENCE_S: Final = 5.0


async def nats_greeting(url: str) -> str:
    """Return what a NATS server with JetStream says of itself after it let us in; secrets of the URL are not shown.

    Raises:
        MachineError: It does not answer, refuses us, or has no JetStream.
    """
    where = urlsplit(url)
    address = f"{where.hostname or '127.0.0.1'}:{where.port or 4222}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            # A server that insists on TLS says so before it begins with it.
            reader, writer = await asyncio.open_connection(where.hostname or "127.0.0.1", where.port or 4222)
            try:
                info = _info(await reader.readline(), address)
                if not info.get("tls_required"):
                    await _enter(reader, writer, user=where.username, password=where.password, address=address)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError) as error:
        raise MachineError(f"No NATS answers at {address}. Start it, or mend PIXLOOM_NATS_URL.") from error
    if not info.get("jetstream"):
        raise MachineError(f"NATS at {address} has no JetStream. Start it with `--jetstream`.")
    return f"NATS {info.get('version', '')}"


def _info(line: bytes, address: str) -> dict[str, Any]:
    if not line.startswith(b"INFO "):
        raise MachineError(f"What answers at {address} is not NATS. Mend PIXLOOM_NATS_URL.")
    found: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    return found


async def _enter(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, user: str | None, password: str | None, address: str
) -> None:
    options: dict[str, Any] = {"verbose": False, "pedantic": False, "lang": "python", "name": "pixloom-doctor"}
    if user is not None and password is None:
        options["auth_token"] = unquote(user)
    elif user is not None:
        options |= {"user": unquote(user), "pass": unquote(password or "")}
    writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
    await writer.drain()
    line = await reader.readline()
    if not line.startswith(b"PONG"):
        why = line.decode("ascii", "replace").strip().removeprefix("-ERR ").strip("'") or "it closed the connection"
        raise MachineError(f"NATS at {address} does not let us in: {why}. Mend user and password in PIXLOOM_NATS_URL.")
