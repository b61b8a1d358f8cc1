"""Where a run happens: on the server that was named, on one that answers, or on a stack of its own."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pixloom.errors import UnavailableError
from pixloom.sdk.address import EMBEDDED, grpc_address
from pixloom.sdk.aio import AsyncClient
from pixloom.settings import ClientSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from pixloom.local.stack import LocalStack

__all__ = ["Connection", "answering_server", "connect", "embedded"]

_PROBE_S = 1.0


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and the stack behind it if there is one of our own.

    Attributes:
        client: The client.
        stack: The embedded stack; None if a server was there.
    """

    client: AsyncClient
    stack: LocalStack | None = None


async def answering_server(server: str | None = None) -> str | None:
    """Return the gRPC address of the server to use, or None if there is none.

    There is none if none was named and none answers at the default place, or if it is `embedded`.

    Args:
        server: Address that was given; None to look at the settings.

    Raises:
        UnavailableError: If a server was named, here or in the settings, and does not answer.
    """
    settings = load_settings(ClientSettings, server=server)
    if settings.server == EMBEDDED:
        return None
    address = await asyncio.to_thread(grpc_address, settings.server)
    if await _accepts_connections(address):
        return address
    if "server" in settings.model_fields_set:
        raise UnavailableError(
            f"No server answers at {settings.server}. Start one with `pixloom up`, or name another with --server or "
            "PIXLOOM_SERVER; without either, a stack is started for the run."
        )
    return None


async def _accepts_connections(address: str) -> bool:
    try:
        async with asyncio.timeout(_PROBE_S):
            if address.startswith("unix:"):
                _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
            else:
                host, _, port = address.rpartition(":")
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, UnicodeError):
        # Also a name that none can be, such as one with an empty part.
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


@contextlib.asynccontextmanager
async def connect(
    server: str | None = None,
    *,
    source_roots: tuple[Path, ...] = (),
    imports: tuple[str, ...] = (),
    data_dir: Path | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Connection]:
    """Connect to a server, or start an embedded stack that ends with the block.

    Args:
        server: Address of the server; None to take the one of the settings or the one that answers at the default
            place, and to start a stack if there is neither.
        source_roots: Folders that an embedded stack may read.
        imports: Modules with ops of the user's own that an embedded stack serves.
        data_dir: Data directory of an embedded stack; `.pixloom` if None.
        announce: Shows one line to people.

    Raises:
        UnavailableError: If a server was named and does not answer.
        MachineError: If the embedded stack does not start.
    """
    address = await answering_server(server)
    if address is not None:
        async with AsyncClient(address) as client:
            yield Connection(client)
        return
    async with embedded(source_roots=source_roots, imports=imports, data_dir=data_dir, announce=announce) as connection:
        yield connection


@contextlib.asynccontextmanager
async def embedded(
    *,
    source_roots: tuple[Path, ...] = (),
    imports: tuple[str, ...] = (),
    data_dir: Path | None = None,
    http_port: int = 0,
    grpc_port: int = 0,
    announce: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Connection]:
    """Start an embedded stack that ends with the block.

    Args:
        source_roots: Folders that it may read, in addition to those of the settings.
        imports: Modules with ops of the user's own that it serves.
        data_dir: Data directory; `.pixloom` if None.
        http_port: Port of REST; 0 for any free one.
        grpc_port: Port of gRPC; 0 for any free one.
        announce: Shows one line to people.

    Raises:
        MachineError: If it does not start.
    """
    from pixloom.local.options import LocalStackOptions
    from pixloom.local.stack import LocalStack

    if imports:
        from pixloom.sdk.own_ops import own_op_specs

        # Executors would find a module that cannot be imported one by one, and only once everything else runs.
        own_op_specs(imports)
    options = LocalStackOptions.from_settings(
        source_roots=source_roots, imports=imports, data_dir=data_dir, http_port=http_port, grpc_port=grpc_port
    )
    async with LocalStack(options, announce=announce) as stack, AsyncClient(stack.grpc_address) as client:
        yield Connection(client, stack)
