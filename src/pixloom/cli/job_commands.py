"""Commands about jobs."""

# ruff: noqa: FBT002, PLR0917 - the command line is made of positional arguments and flags
from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer

from pixloom.cli.context import OutputFormat, connected, globals_of, resolve_job
from pixloom.cli.streams import put

if TYPE_CHECKING:
    from pixloom.resources import Job, Node, Output

__all__ = ["register"]

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or @latest.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("submit", submit),
        ("list", list_jobs),
        ("get", get),
        ("watch", watch),
        ("results", results),
        ("items", items),
        ("attempts", attempts),
    ):
        app.command(name)(command)


def submit(
    context: typer.Context,
    workflow: Annotated[str, typer.Argument(metavar="FILE|NAME", help="Workflow file, or name of a stored workflow.")],
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="Param of the run; repeatable.")
    ] = None,
    version: Annotated[
        int, typer.Option("--version", min=0, max=2**32 - 1, help="Version of a stored workflow; 0 is the newest.")
    ] = 0,
    name: Annotated[str, typer.Option("--name", help="Name of the job.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Tag; repeatable.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", min=0, max=9, help="0 to 9, 9 first.")] = None,
    external_id: Annotated[str, typer.Option("--external-id", help="Your own id for the job.")] = "",
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Let it wait for `pixloom start`, which may bring params it lacks.")
    ] = False,
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="The same id again returns the first job.")
    ] = None,
) -> None:
    """Submit a job and return at once; prints its id."""
    from pixloom.cli.arguments import parse_assignments, parse_tags
    from pixloom.cli.documents import document_for
    from pixloom.cli.output import print_one

    params, tags = parse_assignments(param or ()), parse_tags(tag or ())
    with connected(context) as client:
        document = document_for(client, workflow)
        job = client.create_job(
            None if document is not None else workflow,
            spec=document,
            version=version,
            params=params,
            tags=tags,
            priority=priority,
            external_id=external_id,
            start=not no_start,
            request_id=request_id,
            name=name,
        )
    print_one(job, globals_of(context), lambda: put(job.id))


def list_jobs(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option("--state", help="Only this state; repeatable.")] = None,
    workflow: Annotated[str, typer.Option("--workflow", help="Only jobs of this workflow.")] = "",
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Only with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most jobs to show.")] = 50,
    page_token: Annotated[str, typer.Option("--page-token", help="Token of the page before.")] = "",
) -> None:
    """List jobs, newest first."""
    from pixloom.cli.arguments import parse_tags
    from pixloom.cli.output import duration_text, print_list, time_text

    tags = parse_tags(tag or ())
    with connected(context) as client:
        page = client.list_jobs(
            states=state or (), workflow=workflow, tags=tags, page_size=limit, page_token=page_token
        )

    def row(job: Job) -> list[object]:
        name = job.name or job.workflow
        done = f"{job.progress:.0f} %"
        items = job.items
        counts = (items.ok, items.filtered, items.rejected)
        return [
            job.id,
            name,
            job.state,
            done,
            *counts,
            time_text(job.create_time),
            duration_text(job.actual_duration_s),
        ]

    columns = ("id", "name", "state", "done", "ok", "filtered", "rejected", "created", "took")
    print_list(page.items, globals_of(context), columns, row, next_page_token=page.next_page_token)


def get(context: typer.Context, job: JobArgument) -> None:
    """Show a job and its nodes."""
    from pixloom.cli.output import print_one

    with connected(context) as client:
        found = client.get_job(resolve_job(client, job))
        nodes = client.list_nodes(found.id) if globals_of(context).output is OutputFormat.TABLE else []
    print_one(found, globals_of(context), lambda: _show_job(found, nodes, color=globals_of(context).color))


def _show_job(job: Job, nodes: list[Node], *, color: bool) -> None:
    from pixloom.cli.output import duration_text, print_table, time_text

    facts = {
        "job": job.id,
        "workflow": f"{job.workflow} version {job.version}" if job.version else job.workflow,
        "state": f"{job.state} {job.reason or ''}".strip(),
        "progress": f"{job.progress:.0f} % ({job.tasks.done:,} of {job.tasks.total:,} tasks)",
        "items": f"{job.items.ok:,} ok, {job.items.filtered:,} filtered, {job.items.rejected:,} rejected",
        "created": time_text(job.create_time),
        "took": duration_text(job.actual_duration_s),
        "ends": f"{time_text(job.estimated_end_time)} (estimated)" if job.estimated_end_time else "",
        "trace": job.trace_id or "",
        "error": f"{job.error.reason}: {job.error.detail}" if job.error else "",
    }
    for name, value in facts.items():
        if value:
            put(f"{name:<9} {value}")
    for warning in job.warnings:
        put(f"{'warning':<9} {warning}")
    put()
    columns = ("node", "op", "state", "ok", "filtered", "rejected", "took", "note")
    rows = [
        (
            node.id,
            node.op,
            node.state,
            node.items.ok,
            node.items.filtered,
            node.items.rejected,
            duration_text(node.actual_duration_s),
            node.waiting_reason or (node.error.detail if node.error else "") or _reasons(node),
        )
        for node in nodes
    ]
    print_table(columns, rows, color=color)


def _reasons(node: Node) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in node.reasons.items())


def watch(context: typer.Context, job: JobArgument) -> None:
    """Follow a job until it ends; exit code 1 if it does not complete."""
    import contextlib

    from pixloom.cli.ending import print_failure, print_tally
    from pixloom.cli.execution import watch_to_end
    from pixloom.cli.interruption import run_interruptibly
    from pixloom.cli.output import print_json
    from pixloom.exits import ExitCode
    from pixloom.resources import JobState, Snapshot
    from pixloom.sdk.aio import AsyncClient

    options = globals_of(context)
    with connected(context) as client:
        job_id, address = resolve_job(client, job), client.address

    async def follow() -> int:
        async with AsyncClient(address) as asynchronous:
            if options.output is OutputFormat.TABLE:
                ended = await watch_to_end(asynchronous, job_id, color=options.color)
                print_tally(ended, await asynchronous.list_nodes(job_id))
            else:
                async with contextlib.aclosing(asynchronous.watch_job(job_id)) as updates:
                    async for update in updates:
                        kind = "snapshot" if isinstance(update, Snapshot) else "event"
                        print_json({kind: update.model_dump(mode="json")}, lines=True)
                ended = await asynchronous.get_job(job_id)
        print_failure(ended)
        return ExitCode.OK if ended.state is JobState.COMPLETED else ExitCode.FAILED

    raise typer.Exit(run_interruptibly(follow()))


def results(
    context: typer.Context,
    job: JobArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the outputs to a folder for the job in here.")
    ] = None,
) -> None:
    """Show the outputs of a job, and write them with --out."""
    import asyncio

    from pixloom.cli.destination import require_writable
    from pixloom.cli.ending import print_paths
    from pixloom.cli.export import export_outputs
    from pixloom.cli.output import print_json, print_one, print_table
    from pixloom.sdk.aio import AsyncClient

    options = globals_of(context)
    if out is not None:
        require_writable(out)
    with connected(context) as client:
        job_id, address = resolve_job(client, job), client.address
        found = client.get_results(job_id)

    def show() -> None:
        rows = [(name, output.kind, output.node, _what(output)) for name, output in found.outputs.items()]
        print_table(("output", "kind", "node", "what"), rows, color=options.color)
        if not found.complete:
            put(f"The job is {found.state}; more may follow.")

    async def export() -> None:
        assert out is not None  # noqa: S101 - for the type checker
        async with AsyncClient(address) as asynchronous:
            paths = await export_outputs(asynchronous, job_id, found, out / job_id)
        if options.output is OutputFormat.TABLE:
            print_paths(paths)
        else:
            files = {output: str(path) for output, path in paths.items()}
            print_json({"files": files}, lines=options.output is OutputFormat.JSONL)

    if out is None:
        print_one(found, options, show)
    else:
        asyncio.run(export())


def _what(output: Output) -> str:
    import json

    from pixloom.cli.output import size_text

    if output.artifact is not None:
        return f"{output.artifact.media_type}, {size_text(output.artifact.size_bytes)}, {output.artifact.sha256}"
    if output.count is not None:
        return f"{output.count:,} items"
    return json.dumps(output.value, ensure_ascii=False)


def items(
    context: typer.Context,
    job: JobArgument,
    node: Annotated[str, typer.Argument(help="Id of a node.")],
    state: Annotated[list[str] | None, typer.Option("--state", help="ok, filtered or rejected; repeatable.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Only this reason.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most items to show.")] = 100,
    page_token: Annotated[str, typer.Option("--page-token", help="Token of the page before.")] = "",
) -> None:
    """List the items of a node."""
    from pixloom.cli.output import print_list, size_text

    with connected(context) as client:
        page = client.list_items(
            resolve_job(client, job),
            node,
            states=state or (),
            reason=reason,
            page_size=limit,
            page_token=page_token,
        )
    print_list(
        page.items,
        globals_of(context),
        ("key", "state", "reason", "format", "width", "height", "size", "detail"),
        lambda item: (
            item.key,
            item.state,
            item.reason,
            item.format,
            item.width,
            item.height,
            size_text(item.size_bytes),
            item.detail,
        ),
        next_page_token=page.next_page_token,
    )


def attempts(
    context: typer.Context,
    job: JobArgument,
    node: Annotated[str, typer.Argument(help="Id of a node; all of them if not given.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most attempts to show.")] = 100,
) -> None:
    """List the attempts of a job's tasks."""
    from pixloom.cli.output import print_list, time_text

    with connected(context) as client:
        page = client.list_attempts(resolve_job(client, job), node, page_size=limit)
    print_list(
        page.items,
        globals_of(context),
        ("id", "node", "outcome", "reason", "executor", "started", "detail"),
        lambda attempt: (
            attempt.id,
            attempt.node,
            attempt.outcome,
            attempt.reason,
            attempt.executor_id,
            time_text(attempt.start_time),
            attempt.detail,
        ),
        next_page_token=page.next_page_token,
    )
