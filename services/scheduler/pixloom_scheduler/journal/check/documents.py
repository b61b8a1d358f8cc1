"""What is stored beside the journal as a document or a message: it must be readable and say what its row says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson
from google.protobuf.message import DecodeError

from pixloom.graph.canonical import digest_of
from pixloom.v1 import job_pb2
from pixloom_scheduler.journal.check.findings import Violation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import asyncpg

__all__ = ["DOCUMENTS", "PARAMS", "check_columns", "find_changed_versions", "job_served", "node_served"]

DOCUMENTS: Final = "a document is the one that its digest names"
PARAMS: Final = "params and metadata of every job can be read"

_PAGE_VERSIONS: Final = 100
_VERSIONS: Final = """
SELECT project, name, version, spec, sha256 FROM pixloom.workflow_version
WHERE (project, name, version) > ($1, $2, $3) ORDER BY project, name, version LIMIT $4
"""


async def find_changed_versions(connection: asyncpg.Connection[Any]) -> AsyncIterator[Violation]:
    """Yield the versions of workflows whose document is not the one that was stored."""
    last: tuple[str, str, int] = ("", "", 0)
    while rows := await connection.fetch(_VERSIONS, *last, _PAGE_VERSIONS):
        for row in rows:
            if problem := _problem(row):
                where = f"workflow {row['name']} version {row['version']} of project {row['project']}"
                yield Violation(DOCUMENTS, "", where, problem)
        last = rows[-1]["project"], rows[-1]["name"], rows[-1]["version"]


def check_columns(job_id: str, row: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield what is wrong with the documents in a job's row: `spec` with its `sha256`, `params`, `metadata`."""
    if problem := _problem(row):
        yield Violation(DOCUMENTS, job_id, "column spec", problem)
    for column in ("params", "metadata"):
        try:
            found = orjson.loads(row[column])
        except ValueError as error:
            yield Violation(PARAMS, job_id, f"column {column}", f"it is no JSON: {error}"[:300])
            continue
        if not isinstance(found, dict):
            yield Violation(PARAMS, job_id, f"column {column}", "it is no JSON object")


def job_served(record: bytes | None) -> tuple[Any, ...] | None:
    """Return id, state, generation and journal number of an ended job as it is served; None if it is not.

    A record that cannot be read gives what fits no job.
    """
    if record is None:
        return None
    try:
        job = job_pb2.Job.FromString(record)
    except DecodeError:
        return ("unreadable",)
    state = job_pb2.JobState.Name(job.state) if job.state in job_pb2.JobState.values() else str(job.state)
    return job.id, state.removeprefix("JOB_STATE_"), job.generation, job.seq


def node_served(record: bytes) -> tuple[Any, ...]:
    """Return id, state and counts of an ended node as it is served, as `job_served` does."""
    try:
        node = job_pb2.Node.FromString(record)
    except DecodeError:
        return ("unreadable",)
    state = job_pb2.NodeState.Name(node.state) if node.state in job_pb2.NodeState.values() else str(node.state)
    items = node.items
    return node.id, state.removeprefix("NODE_STATE_"), items.ok, items.filtered, items.rejected


def _problem(row: Mapping[str, Any]) -> str:
    if not row["sha256"]:
        return ""
    try:
        digest = digest_of(orjson.loads(row["spec"]))
    except ValueError as error:
        return f"it is no JSON: {error}"[:300]
    return "" if digest == row["sha256"] else f"its digest is {digest}, the row has {row['sha256']}"
