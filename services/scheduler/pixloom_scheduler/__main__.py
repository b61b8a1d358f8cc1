"""`python -m pixloom_scheduler`: one scheduler replica, set up by environment variables."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from pixloom.errors import PixloomError
from pixloom.garbage import collect_rarely
from pixloom.logs import configure, report_failure
from pixloom.settings import SchedulerSettings, load_settings
from pixloom.telemetry.setup import configure_tracing, shutdown_tracing
from pixloom_scheduler.journal.committer import CommitsLostError, OwnershipLostError
from pixloom_scheduler.service import run_scheduler

__all__ = ["main"]


async def _serve(settings: SchedulerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_scheduler(settings, stop=stop)


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    try:
        settings = load_settings(SchedulerSettings)
        configure("scheduler", settings)
        provider = configure_tracing("pixloom-scheduler")
        try:
            collect_rarely()
            uvloop.run(_serve(settings))
        finally:
            shutdown_tracing(provider)
    except (PixloomError, OwnershipLostError, CommitsLostError) as error:
        return report_failure("scheduler", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
