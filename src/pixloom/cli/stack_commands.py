"""Commands that start something: the embedded stack, the demo, a run, or one service."""

# ruff: noqa: FBT002, PLR0917 - the command line is made of positional arguments and flags
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pixloom.cli.context import globals_of
from pixloom.cli.service_process import become
from pixloom.cli.streams import say

__all__ = ["register"]

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the stack keeps everything.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="Port of REST; 0 takes a free one.")]
GrpcPort = Annotated[int, typer.Option("--grpc-port", help="Port of gRPC; 0 takes a free one.")]
Imports = Annotated[
    list[str] | None, typer.Option("--import", metavar="MODULE", help="Module with ops of your own; repeatable.")
]
Out = Annotated[Path, typer.Option("--out", help="Where outputs are written, in a folder for each job.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("demo")(demo)
    app.command("run")(run)
    for service, start in (("scheduler", scheduler), ("gateway", gateway), ("executor", executor)):
        group = typer.Typer(
            no_args_is_help=True, help=f"The {service} alone; its settings say where the other parts are."
        )
        group.callback()(_nothing)
        group.command("start")(start)
        app.add_typer(group, name=service)


def _nothing() -> None:
    pass


def up(
    data_dir: DataDir = Path(".pixloom"),
    http_port: HttpPort = 7300,
    grpc_port: GrpcPort = 7301,
    executors: Annotated[str, typer.Option("--executors", metavar="N|auto", help="Number of executors.")] = "2",
    schedulers: Annotated[
        int, typer.Option("--schedulers", metavar="N", help="Number of schedulers, which share the jobs.")
    ] = 1,
    workflows: Annotated[Path | None, typer.Option("--workflows", metavar="DIR", help="Workflows to load.")] = None,
    imports: Imports = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
) -> None:
    """Start everything on this machine in the foreground; Ctrl-C stops it and keeps the data."""
    import asyncio

    from pixloom.errors import InvalidError
    from pixloom.local.options import LocalStackOptions
    from pixloom.local.up import up as run_up
    from pixloom.sdk.own_ops import own_op_specs

    if executors != "auto" and not (executors.isascii() and executors.isdigit()):
        raise InvalidError(f"--executors is {executors!r}; use a number or auto.")
    if workflows is not None and not workflows.is_dir():
        raise InvalidError(f"There is no folder {workflows} for --workflows.")
    if imports:
        # Executors would find a module that cannot be imported one by one, and only once everything else runs.
        own_op_specs(imports)
    options = LocalStackOptions.from_settings(
        data_dir=data_dir,
        http_port=http_port,
        grpc_port=grpc_port,
        executors=None if executors == "auto" else int(executors),
        schedulers=schedulers,
        workflows_dir=workflows,
        imports=tuple(imports or ()),
    )
    raise typer.Exit(asyncio.run(run_up(options, announce=say, open_browser=not no_open and sys.stdout.isatty())))


def demo(
    context: typer.Context,
    images: Annotated[list[Path] | None, typer.Argument(help="Folder with photographs of your own.")] = None,
    leave: Annotated[bool, typer.Option("--exit", help="Stop when the job is done.")] = False,
    chaos: Annotated[bool, typer.Option("--chaos", help="Kill an executor on the way.")] = False,
    data_dir: DataDir = Path(".pixloom"),
    http_port: HttpPort = 7300,
    grpc_port: GrpcPort = 7301,
    out: Out = Path("pixloom-out"),
) -> None:
    """Run the photo-catalog workflow on real photographs, with live progress."""
    from pixloom.cli.destination import require_writable
    from pixloom.cli.interruption import run_interruptibly
    from pixloom.cli.sources import require_images
    from pixloom.demo.session import run_demo
    from pixloom.errors import InvalidError

    require_writable(out)
    folders = [require_images(folder) for folder in images or ()]
    if len(folders) > 1:
        raise InvalidError(f"The demo reads one folder, and {len(folders)} were named. Name one.")
    code = run_interruptibly(
        run_demo(
            folders,
            data_dir=data_dir.absolute(),
            http_port=http_port,
            grpc_port=grpc_port,
            out=out,
            stay=not leave,
            chaos=chaos,
            color=globals_of(context).color,
        )
    )
    raise typer.Exit(code)


def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="Workflow file (JSON or YAML), or name of a built-in workflow.")],
    images: Annotated[list[Path] | None, typer.Argument(help="Folder for the workflow's source.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="Param of the run; repeatable.")
    ] = None,
    imports: Imports = None,
    out: Out = Path("pixloom-out"),
    data_dir: DataDir = Path(".pixloom"),
) -> None:
    """Run a workflow, wait, and write its outputs; starts a stack of its own if no server answers."""
    from pixloom.cli.arguments import parse_assignments
    from pixloom.cli.run import run_file

    params = parse_assignments(param or ())
    code = run_file(
        file,
        images or (),
        params,
        out=out,
        data_dir=data_dir,
        options=globals_of(context),
        imports=imports or (),
    )
    raise typer.Exit(code)


def scheduler() -> None:
    """Start a scheduler; settings come from the environment and pixloom.toml."""
    become("pixloom_scheduler", environment={})


def gateway() -> None:
    """Start a gateway; settings come from the environment and pixloom.toml."""
    become("pixloom_gateway", environment={})


def executor(
    pool: Annotated[
        list[str] | None, typer.Option("--pool", help="Pool to serve; repeatable. Default: cpu and net.")
    ] = None,
    imports: Imports = None,
) -> None:
    """Start an executor; other settings come from the environment and pixloom.toml."""
    given = {"PIXLOOM_EXECUTOR_POOLS": pool, "PIXLOOM_EXECUTOR_IMPORTS": imports}
    become("pixloom_executor", environment={name: ",".join(values) for name, values in given.items() if values})
