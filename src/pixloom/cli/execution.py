"""Running one job to its end, with progress and exported outputs: what `run` and `demo` have in common."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pixloom.cli.export import export_outputs
from pixloom.cli.progress import progress_for
from pixloom.errors import PixloomError
from pixloom.resources import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pixloom.resources import Job, Node
    from pixloom.sdk.aio import AsyncClient
    from pixloom.sdk.watching import Update

__all__ = ["Ended", "run_document", "watch_to_end"]

_CANCEL_S = 3.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended.

    Attributes:
        job: The job.
        nodes: Its nodes.
        paths: Where its outputs were written, by name.
    """

    job: Job
    nodes: list[Node]
    paths: Mapping[str, Path]

    @property
    def is_completed(self) -> bool:
        """Whether it ended well."""
        return self.job.state is JobState.COMPLETED


async def run_document(
    client: AsyncClient,
    document: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    out: Path,
    color: bool = True,
    cancel_on_interrupt: bool = False,
    on_update: Callable[[Update], None] = lambda _: None,
) -> Ended:
    """Run a document, show its progress, and write its outputs to `out/<job>/`.

    Args:
        client: The server.
        document: The workflow document.
        params: Params of the run.
        out: Where the folder of the job is made.
        color: Whether colours may be used.
        cancel_on_interrupt: Whether the job is cancelled when this is; otherwise it goes on.
        on_update: Called with every event and snapshot.

    Raises:
        PixloomError: What the server answered, or that it did not.
    """
    job = await client.create_job(spec=document, params=params)
    try:
        job = await watch_to_end(client, job.id, color=color, on_update=on_update)
        nodes = await client.list_nodes(job.id)
        results = await client.get_results(job.id)
        paths = await export_outputs(client, job.id, results, out / job.id)
    except asyncio.CancelledError:
        if cancel_on_interrupt:
            await _cancel(client, job.id)
        raise
    return Ended(job, nodes, paths)


async def watch_to_end(
    client: AsyncClient,
    job_id: str,
    *,
    color: bool = True,
    on_update: Callable[[Update], None] = lambda _: None,
) -> Job:
    """Show the progress of a job until it ends, and return it.

    Raises:
        PixloomError: What the server answered, or that it did not.
    """
    with progress_for(time.monotonic, color=color) as progress:
        async with contextlib.aclosing(client.watch_job(job_id)) as updates:
            async for update in updates:
                progress.show(update)
                on_update(update)
    return await client.get_job(job_id)


async def _cancel(client: AsyncClient, job_id: str) -> None:
    """Cancel a job as well as time allows: the stack it runs on is about to stop."""
    with contextlib.suppress(PixloomError, TimeoutError):
        async with asyncio.timeout(_CANCEL_S):
            await client.cancel_job(job_id, now=True, reason="interrupted")
