"""`pixloom demo`: the embedded stack, the photo-catalog workflow over real photographs, and a look at what came out."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from pixloom.cli.ending import print_failure, print_paths, print_tally
from pixloom.cli.execution import run_document
from pixloom.cli.streams import say
from pixloom.demo.photo_set import make_photo_set
from pixloom.exits import ExitCode
from pixloom.resources import NodeState, Snapshot
from pixloom.sdk.connection import embedded
from pixloom.workflows import builtin_workflow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixloom.local.stack import LocalStack
    from pixloom.sdk.watching import Update

__all__ = ["run_demo"]


async def run_demo(
    folders: Sequence[Path],
    *,
    data_dir: Path,
    http_port: int,
    grpc_port: int,
    out: Path,
    stay: bool,
    chaos: bool = False,
    color: bool = True,
) -> int:
    """Run the demo.

    Args:
        folders: A person's own photographs, checked; none for the demo's own set.
        data_dir: Data directory of the stack, absolute.
        http_port: Port of REST; 0 for any free one.
        grpc_port: Port of gRPC; 0 for any free one.
        out: Where the folder of the job is made.
        stay: Whether the stack stays up when the job has ended, until Ctrl-C.
        chaos: Whether an executor is killed on the way.
        color: Whether colours may be used.

    Returns:
        The exit code.

    Raises:
        MachineError: If the photographs or the stack cannot be made.
        PixloomError: If the run was not possible.
    """
    own = data_dir / "demo-photos"
    source = folders[0] if folders else own
    # The roots are named before the folder is there, so that photographs and stack are made side by side.
    making = None if folders else asyncio.create_task(asyncio.to_thread(make_photo_set, own))
    try:
        async with embedded(
            source_roots=(source,), data_dir=data_dir, http_port=http_port, grpc_port=grpc_port, announce=say
        ) as connection:
            if making is not None:
                count = await making
                say(f"{count} photographs, some of them broken on purpose, are in {own}")
            stack = connection.stack
            chaos_monkey = _Chaos(stack) if chaos and stack is not None else None
            ended = await run_document(
                connection.client,
                builtin_workflow("photo-catalog"),
                {"source": str(source)},
                out=out,
                color=color,
                cancel_on_interrupt=True,
                on_update=chaos_monkey.look if chaos_monkey else lambda _: None,
            )
            say("")
            print_tally(ended.job, ended.nodes)
            print_failure(ended.job)
            print_paths(ended.paths)
            sys.stdout.flush()
            if stay and stack is not None:
                say(f"\nThe stack stays up: REST and its documentation at {stack.http_url}/api/docs. Ctrl-C stops it.")
                await asyncio.Event().wait()
    finally:
        if making is not None:
            making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await making
    return ExitCode.OK if ended.is_completed else ExitCode.FAILED


class _Chaos:
    """Kills an executor once the job is at work."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._is_done = False

    def look(self, update: Update) -> None:
        """Kill as soon as photographs are being worked on."""
        if self._is_done or not isinstance(update, Snapshot):
            return
        if any(node.dependencies and node.state is NodeState.RUNNING for node in update.nodes):
            self._is_done = True
            victim = next(part for part in self._stack.parts if part.startswith("executor"))
            pid = self._stack.kill(victim)
            say(f"Chaos: {victim} (pid {pid}) was killed; its work goes on elsewhere.")
