"""The gateway as a process: `python -m pixloom_gateway`. Names the concrete parts and nothing else."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from importlib.metadata import version

import uvloop

from pixloom import logs
from pixloom.artifacts import open_store
from pixloom.errors import PixloomError
from pixloom.garbage import collect_rarely
from pixloom.settings import GatewaySettings, load_settings
from pixloom.telemetry.setup import configure_tracing, shutdown_tracing
from pixloom_gateway.assembly import assemble

__all__ = ["main"]


async def _serve(settings: GatewaySettings) -> None:
    provider = configure_tracing("pixloom-gateway")
    try:
        gateway = await assemble(
            scheduler_addresses=settings.scheduler_addresses,
            store=open_store(settings.artifacts_url),
            http_listen=settings.gateway_http_listen,
            grpc_listen=settings.gateway_grpc_listen,
            version=version("pixloom"),
            new_id=lambda: uuid.uuid4().hex,
            tracer_provider=provider,
        )
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        try:
            await gateway.start()
            await asyncio.wait(
                {asyncio.ensure_future(gateway.wait()), asyncio.ensure_future(stopping.wait())},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            await gateway.stop()
    finally:
        shutdown_tracing(provider)


def main() -> int:
    """Run the gateway until SIGTERM or SIGINT; return the exit code."""
    try:
        settings = load_settings(GatewaySettings)
        logs.configure("gateway", settings)
        collect_rarely()
        uvloop.run(_serve(settings))
    except PixloomError as error:
        return logs.report_failure("gateway", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
