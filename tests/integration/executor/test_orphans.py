"""A supervisor that is killed takes its children along."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from pixloom_executor.children import ChildPool, ChildSettings
from tests.unit.executor.tasks import batch_of, call, inline, item, sliced
from pixloom.v1 import executor_pb2 as pb

async def main():
    folder = Path(sys.argv[1])
    pool = ChildPool(
        slots=2, settings=ChildSettings(artifacts_url=(folder / "store").as_uri(), scratch_dir=str(folder / "scratch"))
    )
    await pool.start()
    task = pb.Task(shard=0, attempt=1, inputs=[sliced(inline(item(0)))])
    await pool.run(batch_of([call("debug.noop")], [task]), lambda result: None)
    hanging = asyncio.create_task(pool.run(batch_of([call("debug.sleep", seconds=600)], [task]), lambda result: None))
    while len(list((folder / "scratch").iterdir())) < 2:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await hanging

asyncio.run(main())
"""


def group_below(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").iterdir():
            children = [int(child) for child in (task / "children").read_text().split()]
            found.update(children)
            waiting.extend(children)
    return found


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"ready\n"
    below = group_below(process.pid)
    handles = [os.pidfd_open(pid) for pid in below]
    assert len(handles) == 3  # the template and two children
    process.kill()
    await process.wait()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        for handle in handles:
            ended = asyncio.Event()
            loop.add_reader(handle, ended.set)
            await ended.wait()
            loop.remove_reader(handle)
            os.close(handle)
