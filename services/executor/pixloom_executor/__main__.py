"""`python -m pixloom_executor`: one executor, set up by environment variables."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from pixloom.errors import PixloomError
from pixloom.garbage import collect_rarely
from pixloom.logs import configure, report_failure
from pixloom.settings import ExecutorSettings, load_settings
from pixloom.telemetry.setup import configure_tracing, shutdown_tracing
from pixloom_executor.service import run_executor

__all__ = ["main"]


async def _serve(settings: ExecutorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_executor(settings, stop=stop)


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    try:
        settings = load_settings(ExecutorSettings)
        configure("executor", settings)
        provider = configure_tracing("pixloom-executor")
        try:
            collect_rarely()
            uvloop.run(_serve(settings))
        finally:
            shutdown_tracing(provider)
    except PixloomError as error:
        return report_failure("executor", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
