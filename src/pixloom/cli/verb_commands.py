"""Commands that control jobs: each prints the job as it is afterwards.

A verb that does not fit the state of the job ends with exit code 1 and says what state that is; one that already holds
changes nothing and ends well.
"""

# ruff: noqa: FBT002, PLR0917 - the command line is made of positional arguments and flags
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pixloom.cli.context import connected, globals_of, resolve_job
from pixloom.cli.streams import put

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixloom.resources import Job
    from pixloom.sdk.client import Client

__all__ = ["register"]

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or @latest.")]
Params = Annotated[
    list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="Param of the run; repeatable.")
]
RequestId = Annotated[
    str | None, typer.Option("--request-id", help="The same id again returns the job as it is, whatever became of it.")
]
FromNode = Annotated[str, typer.Option("--from", metavar="NODE", help="Run this node and all behind it again.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (start, pause, resume, cancel, recover, retry, rerun, update, delete):
        app.command(command.__name__)(command)


def _carry_out(context: typer.Context, job: str, verb: Callable[[Client, str], Job]) -> None:
    """Let something happen to a job and print it as it is then."""
    from pixloom.cli.output import print_one

    with connected(context) as client:
        found = verb(client, resolve_job(client, job))
    print_one(found, globals_of(context), lambda: put(f"{found.id} {found.state}"))


def start(context: typer.Context, job: JobArgument, param: Params = None) -> None:
    """Start a job that was submitted with --no-start."""
    from pixloom.cli.arguments import parse_assignments

    params = parse_assignments(param or ())
    _carry_out(context, job, lambda client, job_id: client.start_job(job_id, params=params or None))


def pause(
    context: typer.Context,
    job: JobArgument,
    now: Annotated[bool, typer.Option("--now", help="Also take running tasks back; they run again later.")] = False,
) -> None:
    """Let nothing new of a job start until it is resumed."""
    _carry_out(context, job, lambda client, job_id: client.pause_job(job_id, now=now))


def resume(context: typer.Context, job: JobArgument) -> None:
    """Let a paused job go on."""
    _carry_out(context, job, lambda client, job_id: client.resume_job(job_id))


def cancel(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Id of a job, or @latest.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Also end running tasks.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for people.")] = "",
    all_jobs: Annotated[bool, typer.Option("--all", help="Every unfinished job that matches, instead of one.")] = False,
    state: Annotated[list[str] | None, typer.Option("--state", help="With --all: only this state; repeatable.")] = None,
    workflow: Annotated[str, typer.Option("--workflow", help="With --all: only jobs of this workflow.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="With --all: only with this tag.")
    ] = None,
) -> None:
    """End a job, or many with --all; nothing new starts."""
    from pixloom.errors import InvalidError

    if all_jobs:
        if job is not None or reason:
            raise InvalidError("With --all, name no job and no --reason.")
        _cancel_all(context, now=now, states=state or (), workflow=workflow, tags=tag or ())
        return
    if job is None or state or workflow or tag:
        raise InvalidError("Name one job, or add --all to cancel every unfinished job that matches.")
    _carry_out(context, job, lambda client, job_id: client.cancel_job(job_id, now=now, reason=reason))


def _cancel_all(
    context: typer.Context, *, now: bool, states: list[str] | tuple[()], workflow: str, tags: list[str] | tuple[()]
) -> None:
    from pixloom.cli.arguments import parse_tags
    from pixloom.cli.context import OutputFormat
    from pixloom.cli.output import print_json

    wanted, output = parse_tags(tags), globals_of(context).output
    with connected(context) as client:
        cancelled = client.cancel_all_jobs(workflow=workflow, tags=wanted, states=states, now=now)
    if output is OutputFormat.TABLE:
        put(f"{cancelled:,} {'job was' if cancelled == 1 else 'jobs were'} cancelled.")
    else:
        print_json({"cancelled": cancelled}, lines=output is OutputFormat.JSONL)


def recover(context: typer.Context, job: JobArgument, from_node: FromNode = "", request_id: RequestId = None) -> None:
    """Take up a job that failed or was cancelled: what is done stays, the rest runs again."""
    _carry_out(
        context,
        job,
        lambda client, job_id: client.recover_job(job_id, from_node=from_node, request_id=request_id),
    )


def retry(
    context: typer.Context,
    job: JobArgument,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", help="Only items rejected for this reason; repeatable.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option("--node", help="Only this node; repeatable.")] = None,
    request_id: RequestId = None,
) -> None:
    """Try failed nodes and rejected items of a job again."""
    nodes, reasons = node or (), reason or ()
    _carry_out(
        context,
        job,
        lambda client, job_id: client.retry_job(job_id, nodes=nodes, reasons=reasons, request_id=request_id),
    )


def rerun(
    context: typer.Context,
    job: JobArgument,
    from_node: FromNode = "",
    param: Params = None,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="The same id again returns the first job.")
    ] = None,
) -> None:
    """Start a new job from an old one, with other params or from a node on; prints the new id."""
    from pixloom.cli.arguments import parse_assignments

    params = parse_assignments(param or ())
    _carry_out(
        context,
        job,
        lambda client, job_id: client.rerun_job(
            job_id, from_node=from_node, params=params or None, request_id=request_id
        ),
    )


def update(
    context: typer.Context,
    job: JobArgument,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Tag; all of them from now on; repeatable.")
    ] = None,
    no_tags: Annotated[bool, typer.Option("--no-tags", help="Take all tags away.")] = False,
    priority: Annotated[int | None, typer.Option("--priority", min=0, max=9, help="0 to 9, 9 first.")] = None,
) -> None:
    """Change tags or priority of a job; of one that has ended only tags."""
    from pixloom.cli.arguments import parse_tags
    from pixloom.errors import InvalidError

    if (tag and no_tags) or not (tag or no_tags or priority is not None):
        raise InvalidError("Say what to change: --tag NAME=VALUE or --no-tags, and --priority 0 to 9.")
    tags = parse_tags(tag or ()) if tag or no_tags else None
    _carry_out(context, job, lambda client, job_id: client.update_job(job_id, tags=tags, priority=priority))


def delete(
    context: typer.Context,
    job: JobArgument,
    missing_ok: Annotated[bool, typer.Option("--missing-ok", help="It is well if there is no such job.")] = False,
) -> None:
    """Delete a job that has ended, with its nodes, attempts and events; its files stay in the store."""
    from pixloom.cli.context import OutputFormat
    from pixloom.cli.output import print_json

    output = globals_of(context).output
    with connected(context) as client:
        job_id = resolve_job(client, job)
        client.delete_job(job_id, allow_missing=missing_ok)
    if output is OutputFormat.TABLE:
        put(f"{job_id} was deleted.")
    else:
        print_json({"id": job_id, "deleted": True}, lines=output is OutputFormat.JSONL)
