"""The local stack with the services themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.local.options import LocalStackOptions
from pixloom.local.processes import find
from pixloom.local.stack import LocalStack

if TYPE_CHECKING:
    from pathlib import Path


async def test_services_become_ready_outlive_a_crash_and_leave_nothing(tmp_path: Path) -> None:
    options = LocalStackOptions(data_dir=tmp_path / "data", http_port=0, grpc_port=0, executors=1)
    stack = LocalStack(options)
    await stack.start()
    try:
        for part in ("scheduler", "executor-1", "postgres", "nats"):
            await stack.wait_replaced(part, stack.kill(part))
            await stack.wait_ready()
        pids = {part: stack.pid(part) or 0 for part in stack.parts}
        for part, word in (("scheduler", "scheduler"), ("gateway", "gateway"), ("executor-1", "executor")):
            running = find(pids[part])
            assert running is not None
            assert word in running.command
    finally:
        await stack.stop()
    assert [find(pid) for pid in pids.values()] == [None] * 5
