"""What every command knows: the global options."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

    from pixloom.sdk.client import Client

__all__ = ["Globals", "OutputFormat", "connected", "globals_of", "resolve_job"]


class OutputFormat(StrEnum):
    """How results are shown."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Globals:
    """The global options.

    Attributes:
        server: Address of the server; None to look at the settings.
        output: How results are shown.
        color: Whether colours may be used.
    """

    server: str | None = None
    output: OutputFormat = OutputFormat.TABLE
    color: bool = True


def globals_of(context: typer.Context) -> Globals:
    """Return the global options of a command."""
    found = context.find_object(Globals)
    return found if found is not None else Globals()


@contextlib.contextmanager
def connected(context: typer.Context) -> Iterator[Client]:
    """Give a client of the server that the options or settings name.

    Raises:
        UnavailableError: If it does not answer.
    """
    from pixloom.errors import UnavailableError
    from pixloom.sdk.address import default_server
    from pixloom.sdk.client import Client

    server = globals_of(context).server or default_server()
    with Client(server) as client:
        if not client.is_answering(timeout_s=2.0):
            raise UnavailableError(
                f"No server answers at {server}. Start one with `pixloom up`, or name another with --server or "
                "PIXLOOM_SERVER."
            )
        yield client


def resolve_job(client: Client, job: str) -> str:
    """Return the id of a job; `@latest` is the newest one.

    Raises:
        NotFoundError: If there is no job yet.
    """
    if job != "@latest":
        return job
    from pixloom.errors import NotFoundError

    jobs = client.list_jobs(page_size=1).items
    if not jobs:
        raise NotFoundError("There is no job yet. `pixloom run FILE` starts one.")
    return jobs[0].id
