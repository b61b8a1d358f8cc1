"""Commands about workflows, ops and executors."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixloom.cli.context import OutputFormat, connected, globals_of
from pixloom.cli.streams import put, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.summaries import StageSummary
    from pixloom.resources import Op, Plan

__all__ = ["register"]

Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Module with ops of your own, if no server answers; repeatable."),
]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="Workflow file, JSON or YAML.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("lint")(lint)
    app.command("plan")(plan)
    workflows = typer.Typer(no_args_is_help=True, help="Stored workflows.")
    for name, command in (
        ("apply", apply_workflow),
        ("list", list_workflows),
        ("get", get_workflow),
        ("versions", list_versions),
        ("delete", delete_workflow),
    ):
        workflows.command(name)(command)
    app.add_typer(workflows, name="workflows")
    ops = typer.Typer(no_args_is_help=True, help="The ops that workflows may use.")
    ops.command("list")(list_ops)
    ops.command("show")(show_op)
    app.add_typer(ops, name="ops")
    executors = typer.Typer(no_args_is_help=True, help="The executors in session.")
    executors.command("list")(list_executors)
    executors.command("drain")(drain_executor)
    app.add_typer(executors, name="executors")


def lint(context: typer.Context, file: FileArgument, imports: Imports = None) -> None:
    """Check a workflow file; every problem is shown with its place."""
    from pixloom.cli.complaint import show_problems
    from pixloom.cli.documents import load_document
    from pixloom.cli.output import print_json
    from pixloom.exits import ExitCode
    from pixloom.graph.validation import validate
    from pixloom.resources import PlaceProblem, Validation

    document = load_document(file)
    result = validate(document, _catalogue(context, imports or ()))
    options = globals_of(context)
    if options.output is not OutputFormat.TABLE:
        places = [
            PlaceProblem(pointer=entry.pointer, detail=entry.detail, reason=entry.reason) for entry in result.problems
        ]
        validation = Validation(
            valid=not places, problems=places, sha256=result.sha256 or None, notes=list(result.notes)
        )
        print_json(validation.model_dump(mode="json"), lines=options.output is OutputFormat.JSONL)
    else:
        for note in result.notes:
            say(f"  note: {note}")
        show_problems(result.problems, name=file)
        count = len(result.problems)
        put(f"{file}: {count} problem{'s' if count != 1 else ''}" if count else f"{file}: valid, {result.sha256}")
    raise typer.Exit(ExitCode.INVALID if result.problems else ExitCode.OK)


def plan(
    context: typer.Context,
    workflow: Annotated[str, typer.Argument(metavar="FILE|NAME", help="Workflow file, or name of a workflow.")],
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="Param of the run; repeatable.")
    ] = None,
    imports: Imports = None,
) -> None:
    """Show what a run would do: stages, counts and time, without running it."""
    from pixloom.cli.arguments import parse_assignments
    from pixloom.cli.documents import catalogue_of, checked, document_for, load_document
    from pixloom.cli.output import duration_text, print_one, print_table
    from pixloom.cli.sources import count_source_items

    params = parse_assignments(param or ())
    options = globals_of(context)
    if _answers(context):
        with connected(context) as client:
            document = document_for(client, workflow)
            if document is not None:
                document = checked(document, catalogue_of(client), name=workflow).document
            counted = document if document is not None else client.get_workflow(workflow).spec
            found = client.plan_workflow(
                workflow if document is None else None,
                spec=document,
                params=params,
                source_items=count_source_items(counted or {}, params),
            )
    else:
        from pixloom.graph.planner import plan as make_plan
        from pixloom.graph.run_params import resolve_params
        from pixloom.graph.summaries import stage_summaries

        catalogue = _own_catalogue(imports or ())
        result = checked(load_document(workflow), catalogue, name=workflow)
        spec = result.require()
        planned = make_plan(spec, resolve_params(spec, params), catalogue)
        found = _as_resource(
            stage_summaries(planned, catalogue, source_items=count_source_items(result.document, params))
        )

    def show() -> None:
        rows = [
            (
                stage.index,
                " → ".join(stage.nodes),
                stage.pool,
                stage.shard_size or "",
                _about(stage.items, estimated=stage.estimated),
                _about(stage.tasks, estimated=stage.estimated and stage.tasks != 1),
                duration_text(stage.cost_s),
                stage.boundary,
            )
            for stage in found.stages
        ]
        columns = ("stage", "nodes", "pool", "shard", "items", "tasks", "per item", "begins because of")
        print_table(columns, rows, color=options.color)
        if found.estimated_duration_s is not None:
            put(f"about {duration_text(found.estimated_duration_s)}")

    print_one(found, options, show)


def _about(count: int | None, *, estimated: bool) -> str:
    """Return a count for people; `~` marks an estimate, a blank what is not known."""
    return "" if count is None else f"{'~' if estimated else ''}{count:,}"


def _as_resource(summaries: Sequence[StageSummary]) -> Plan:
    from pixloom.resources import Plan, Stage

    return Plan(
        stages=[
            Stage(
                index=summary.index,
                nodes=list(summary.nodes),
                pool=summary.pool,
                inputs=list(summary.inputs),
                shard_size=summary.shard_size,
                items=summary.items,
                tasks=summary.tasks,
                cost_s=summary.cost_s,
                boundary=summary.boundary or None,
                estimated=summary.estimated,
            )
            for summary in summaries
        ]
    )


def _answers(context: typer.Context) -> bool:
    """Tell whether there is a server to ask; one that was named must answer."""
    import asyncio

    from pixloom.sdk.connection import answering_server

    return asyncio.run(answering_server(globals_of(context).server)) is not None


def _own_catalogue(imports: Sequence[str]) -> Catalogue:
    """Return the built-in ops and those of the user's modules, which the settings name if nobody else does."""
    from pixloom.graph.builtin import builtin_catalogue
    from pixloom.sdk.own_ops import own_op_specs
    from pixloom.settings import ExecutorSettings, load_settings

    return builtin_catalogue().merged(own_op_specs(imports or load_settings(ExecutorSettings).executor_imports))


def _catalogue(context: typer.Context, imports: Sequence[str]) -> Catalogue:
    """Return the ops of the server if one answers, else the built-in ones and those of the user's modules."""
    if not _answers(context):
        return _own_catalogue(imports)
    from pixloom.cli.documents import catalogue_of

    with connected(context) as client:
        return catalogue_of(client)


def apply_workflow(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Workflow files, JSON or YAML.")],
) -> None:
    """Store workflows; unchanged content keeps its version."""
    from pixloom.cli.documents import read_document
    from pixloom.cli.output import print_json

    documents = [read_document(file) for file in files]
    options = globals_of(context)
    with connected(context) as client:
        for document in documents:
            applied = client.apply_workflow(document)
            workflow = applied.workflow
            if options.output is OutputFormat.TABLE:
                put(f"{workflow.name} version {workflow.version}{'' if applied.changed else ' (unchanged)'}")
            else:
                print_json(workflow.model_dump(mode="json"), lines=options.output is OutputFormat.JSONL)


def list_workflows(context: typer.Context) -> None:
    """List the stored workflows by name."""
    from pixloom.cli.output import print_list, time_text

    with connected(context) as client:
        found = list(client.iter_workflows(page_size=1000))
    print_list(
        found,
        globals_of(context),
        ("name", "version", "changed", "description"),
        lambda workflow: (workflow.name, workflow.version, time_text(workflow.update_time), workflow.description),
    )


def get_workflow(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a workflow.")],
    version: Annotated[int, typer.Option("--version", min=0, max=2**32 - 1, help="Version; 0 is the newest.")] = 0,
) -> None:
    """Show the document of a workflow."""
    from pixloom.cli.output import print_json, print_one

    with connected(context) as client:
        found = client.get_workflow(name, version)
    print_one(found, globals_of(context), lambda: print_json(found.spec))


def list_versions(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of a workflow.")]) -> None:
    """List the versions of a workflow, newest first."""
    from pixloom.cli.output import print_list, time_text

    with connected(context) as client:
        found = list(client.iter_workflow_versions(name, page_size=1000))
    print_list(
        found,
        globals_of(context),
        ("version", "created", "sha256"),
        lambda workflow: (workflow.version, time_text(workflow.update_time), workflow.sha256),
    )


def delete_workflow(context: typer.Context, name: Annotated[str, typer.Argument(help="Name of a workflow.")]) -> None:
    """Delete a workflow; jobs of it stay readable."""
    with connected(context) as client:
        client.delete_workflow(name)
    if globals_of(context).output is OutputFormat.TABLE:
        put(f"{name} deleted")


def list_ops(context: typer.Context) -> None:
    """List the ops by name; the built-in ones if no server answers."""
    from pixloom.cli.output import print_list

    print_list(
        _ops(context),
        globals_of(context),
        ("op", "kind", "pool", "summary"),
        lambda op: (op.name, op.kind, op.pool, op.summary),
    )


def show_op(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of an op, such as image.thumbnail.")]
) -> None:
    """Show what an op does, its inputs and its params."""
    from difflib import get_close_matches

    from pixloom.cli.output import print_one
    from pixloom.errors import NotFoundError

    ops = _ops(context)
    # Versions ascend, so the last one that fits is the newest.
    found = next((op for op in reversed(ops) if name in {op.name, op.name.partition("@")[0]}), None)
    if found is None:
        close = get_close_matches(name, [op.name.partition("@")[0] for op in ops], n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise NotFoundError(f"There is no op {name}.{hint} `pixloom ops list` shows all ops.")
    op = found
    print_one(op, globals_of(context), lambda: _show_op(op, color=globals_of(context).color))


def _ops(context: typer.Context) -> list[Op]:
    if _answers(context):
        with connected(context) as client:
            return client.list_ops()
    from pixloom.graph.builtin import builtin_catalogue
    from pixloom.resources import Op, Port

    return [
        Op(
            name=spec.ref,
            kind=spec.kind,
            summary=spec.summary,
            documentation=spec.documentation,
            params_schema=dict(spec.params_schema),
            inputs=[Port(name=port.name, type=port.type, optional=port.optional) for port in spec.inputs],
            output=spec.output,
            pool=spec.pool,
            deterministic=spec.deterministic,
            external_effect=spec.external_effect,
            expands=spec.expands,
            cost_hint_s=spec.cost_hint_s,
            default_timeout_s=spec.default_timeout_s,
            digest=spec.digest,
        )
        for spec in builtin_catalogue()
    ]


def _show_op(op: Op, *, color: bool) -> None:
    import json

    from pixloom.cli.output import print_table

    put(f"{op.name}: {op.kind} op in pool {op.pool}, gives {op.output}")
    put()
    put(op.documentation or op.summary)
    if op.expands:
        put()
        put("It may make several items of one, so a stage ends behind it.")
    if op.inputs:
        put()
        ports = [(port.name, port.type, "no" if port.optional else "yes") for port in op.inputs]
        print_table(("input", "takes", "required"), ports, color=color)
    properties = op.params_schema.get("properties", {})
    if properties:
        required = op.params_schema.get("required", [])
        rows = [
            (
                name,
                _type_of(schema),
                "required" if name in required else json.dumps(schema.get("default")),
                schema.get("description", ""),
            )
            for name, schema in properties.items()
        ]
        put()
        print_table(("param", "type", "default", "description"), rows, color=color)


def _type_of(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "|".join(str(entry) for entry in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type_of(entry) for entry in schema["anyOf"])
    return str(schema.get("type", "any"))


def list_executors(context: typer.Context) -> None:
    """List the executors in session."""
    from pixloom.cli.output import print_list, time_text

    with connected(context) as client:
        found = client.list_executors()
    print_list(
        found,
        globals_of(context),
        ("id", "pools", "ops", "busy", "slots", "draining", "host", "pid", "since", "seen"),
        lambda executor: (
            executor.id,
            ",".join(executor.pools),
            len(executor.ops),
            executor.busy,
            executor.slots,
            "yes" if executor.draining else "no",
            executor.hostname,
            executor.pid,
            time_text(executor.start_time),
            time_text(executor.last_seen_time),
        ),
    )


def drain_executor(
    context: typer.Context,
    executor: Annotated[str, typer.Argument(help="Id of the executor, or its beginning if no other begins so.")],
) -> None:
    """Let an executor take nothing new, hand back what has not started, finish the rest and end."""
    from pixloom.cli.output import print_one
    from pixloom.errors import NotFoundError

    with connected(context) as client:
        ids = [known.id for known in client.list_executors() if executor and known.id.startswith(executor)]
        if len(ids) > 1 and executor not in ids:
            raise NotFoundError(f"{len(ids)} executors begin with {executor}; give more of the id.")
        drained = client.drain_executor(ids[0] if len(ids) == 1 else executor)
    print_one(
        drained,
        globals_of(context),
        lambda: put(f"executor {drained.id} is draining; {drained.busy} of {drained.slots} slots are busy"),
    )
