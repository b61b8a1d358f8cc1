"""Jobs written in Python: a workflow with a name, and `execute`, which runs it and returns the results."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pixloom.errors import InvalidError, PixloomError
from pixloom.resources import JobState, OutputKind
from pixloom.sdk.aio import AsyncClient
from pixloom.sdk.client import Client
from pixloom.sdk.connection import connect
from pixloom.sdk.result import NodeResult, node_results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from pixloom.artifacts import ArtifactStore
    from pixloom.resources import Item, Job, Results
    from pixloom.sdk.dag import DAG
    from pixloom.sdk.workflow_calls import Applied

__all__ = ["JobDefinition", "JobFailedError"]

_FIRST_WAIT_S: Final = 1.0
"""A job that ends within this time takes one call; a longer one is watched, which survives a lost connection."""


_LONGEST_WAIT_S: Final = 5.0
"""How long a thread waits for a job at a time, and so how long a run that was given up keeps one."""


class JobFailedError(PixloomError):
    """A job ended without being COMPLETED.

    Attributes:
        job: The job as it ended.
    """

    reason = "STATE_CONFLICT"

    def __init__(self, job: Job) -> None:
        why = f": {job.error.detail}" if job.error else ""
        where = f" at node {job.error.node}" if job.error and job.error.node else ""
        super().__init__(
            f"Job {job.id} ended {job.state}{where}{why} `pixloom get {job.id}` shows its nodes.",
            metadata={"job": job.id, "state": job.state},
        )
        self.job = job


class JobDefinition:
    """A workflow that is run under a name; every `execute` is a new job of it.

    Args:
        name: Names the workflow: 1 to 128 of letters, digits, `.`, `_` and `-`.
        dag: The nodes.
        description: What it does.
        tags: Tags of workflow and jobs.
        metadata: Metadata of workflow and jobs.
    """

    def __init__(
        self,
        name: str,
        dag: DAG,
        *,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.dag = dag
        self.description = description
        self.tags = dict(tags or {})
        self.metadata = dict(metadata or {})

    def to_document(self) -> dict[str, Any]:
        """Return the workflow document."""
        return self.dag.to_document(
            name=self.name, description=self.description, tags=self.tags, metadata=self.metadata
        )

    async def execute(
        self,
        client: AsyncClient | Client | str | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        imports: Sequence[str] = (),
    ) -> dict[str, NodeResult]:
        """Store the workflow, run a job of it and wait for its end.

        Args:
            client: A client, or the address of a server. None takes the server of the settings or the one that answers
                at 127.0.0.1:7301, and starts an embedded stack for this run if there is neither; it may read the
                folders that the workflow's sources name. With a `Client` that was given a channel, run and results go
                through that channel; with such an `AsyncClient` the run does, and artifacts and collections are not
                read by their results but by the client's own `read_artifact` and `iter_items`.
            params: Params of the run.
            imports: Modules with ops of the user's own, for an embedded stack to serve; executors of a server are
                started with theirs.

        Returns:
            Results by node id: JSON values, `ArtifactResult` or `CollectionResult`.

        Raises:
            InvalidError: If the workflow or the params are not valid; `problems` has every place.
            JobFailedError: If the job FAILED or was CANCELLED.
            PixloomError: If the server answered otherwise or not at all.
        """
        async with self._session(client, params or {}, tuple(imports)) as (session, artifacts):
            applied = await session.apply_workflow(self.to_document())
            job = await session.create_job(
                self.name, version=applied.workflow.version, params=params, wait_s=_FIRST_WAIT_S
            )
            if not job.state.is_final:
                job = await session.wait_job(job.id)
            if job.state is not JobState.COMPLETED:
                raise JobFailedError(job)
            results = await session.get_results(job.id)
            if isinstance(session, _Threads):
                return node_results(job.id, results, session)
            if artifacts is not None:
                return node_results(job.id, results, await _left(session, job.id, results, artifacts))
            return node_results(job.id, results, _Remote(session.address) if session.address else _Unread())

    @contextlib.asynccontextmanager
    async def _session(
        self, client: AsyncClient | Client | str | None, params: Mapping[str, Any], imports: tuple[str, ...]
    ) -> AsyncIterator[tuple[AsyncClient | _Threads, str | None]]:
        """Give a client, and the URL of the object store if it belongs to a stack that ends with the run."""
        if isinstance(client, AsyncClient):
            yield client, None
            return
        if isinstance(client, Client) and not client.address:
            yield _Threads(client), None
            return
        server = client.address if isinstance(client, Client) else client
        async with connect(server, source_roots=tuple(self._folders(params)), imports=imports) as connection:
            stack = connection.stack
            if stack is None:
                yield connection.client, None
            else:
                folder = stack.options.data_dir.absolute() / "artifacts"
                yield connection.client, stack.options.artifacts_url or folder.as_uri()

    def _folders(self, params: Mapping[str, Any]) -> Iterator[Path]:
        """Yield the folders that sources of the workflow read, for a stack that is started for them."""
        for step in self.dag.nodes:
            if step.op.startswith("source."):
                for value in step.params.values():
                    given = (
                        params.get(value[9:-1]) if isinstance(value, str) and value.startswith("${params.") else value
                    )
                    if isinstance(given, str) and Path(given).is_dir():
                        # Sources look for relative paths below their roots.
                        yield Path(given) if Path(given).is_absolute() else Path.cwd()


class _Threads:
    """A blocking client that was given a channel: run in threads, none of which waits for long, and read as it is."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def apply_workflow(self, document: dict[str, Any]) -> Applied:
        return await asyncio.to_thread(self._client.apply_workflow, document)

    async def create_job(self, name: str, *, version: int, params: Mapping[str, Any] | None, wait_s: float) -> Job:
        return await asyncio.to_thread(self._client.create_job, name, version=version, params=params, wait_s=wait_s)

    async def wait_job(self, job_id: str) -> Job:
        while True:
            job = await asyncio.to_thread(self._client.wait_job, job_id, timeout_s=_LONGEST_WAIT_S)
            if job.state.is_final:
                return job

    async def get_results(self, job_id: str) -> Results:
        return await asyncio.to_thread(self._client.get_results, job_id)

    def read_artifact(self, sha256: str) -> bytes:
        return self._client.read_artifact(sha256)

    def iter_items(self, job_id: str, node: str) -> Iterator[Item]:
        return self._client.iter_items(job_id, node)


class _Unread:
    """Stands where results would be read through a channel of asyncio, which blocking code cannot use."""

    def read_artifact(self, sha256: str) -> bytes:
        raise InvalidError(
            f"Artifact {sha256} cannot be read here: the run had an AsyncClient with a channel of its own. "
            "Await read_artifact(sha256) of that client, or run with an address or a Client."
        )

    def iter_items(self, job_id: str, node: str) -> Iterator[Item]:
        raise InvalidError(
            f"Items of {node} cannot be read here: the run had an AsyncClient with a channel of its own. "
            f'Use iter_items("{job_id}", "{node}") of that client, or run with an address or a Client.'
        )


class _Remote:
    """Reads results from a server, each time over a connection of its own."""

    def __init__(self, address: str) -> None:
        self._address = address

    def read_artifact(self, sha256: str) -> bytes:
        with Client(self._address) as client:
            return client.read_artifact(sha256)

    def iter_items(self, job_id: str, node: str) -> Iterator[Item]:
        with Client(self._address) as client:
            yield from client.iter_items(job_id, node)


class _Left:
    """Reads what an embedded stack left in its object store, and the items fetched before it ended."""

    def __init__(self, items: Mapping[str, list[Item]], store: ArtifactStore) -> None:
        self._items = items
        self._store = store

    def read_artifact(self, sha256: str) -> bytes:
        return self._store.get(sha256)

    def iter_items(self, job_id: str, node: str) -> Iterator[Item]:
        del job_id
        return iter(self._items[node])


async def _left(client: AsyncClient, job_id: str, results: Results, artifacts_url: str) -> _Left:
    from pixloom.artifacts import open_store

    items = {
        output.node: [item async for item in client.iter_items(job_id, output.node, page_size=1000)]
        for output in results.nodes.values()
        if output.kind is OutputKind.COLLECTION
    }
    return _Left(items, open_store(artifacts_url))
