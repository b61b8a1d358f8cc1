"""A database that says that it takes nobody: callers are told to try again, and not that the service has failed."""

from __future__ import annotations

import asyncio
import struct

import pytest

from pixloom.errors import UnavailableError
from pixloom_scheduler.journal import schema
from pixloom_scheduler.journal.reader import Reader


def error_response(state: str, text: str) -> bytes:
    """Return what PostgreSQL sends before it hangs up (manual, "Error and Notice Message Fields")."""
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", state), (b"M", text))
    )
    return b"E" + struct.pack("!I", len(fields) + 5) + fields + b"\0"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is shutting down"),
        ("57P01", "terminating connection due to administrator command"),
        ("53300", "sorry, too many clients already"),
    ],
)
async def test_a_database_that_takes_nobody_is_told_from_a_failure(state: str, text: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length, code = struct.unpack("!II", await reader.readexactly(8))
        if code == 80877103:  # SSLRequest: answered with no, and the start-up message follows
            writer.write(b"N")
            length, code = struct.unpack("!II", await reader.readexactly(8))
        await reader.readexactly(length - 8)
        writer.write(error_response(state, text))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    engine = schema.create_engine(f"postgresql://nobody@127.0.0.1:{port}/none")
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            await Reader(engine).job("x")
    finally:
        await engine.dispose()
        server.close()
