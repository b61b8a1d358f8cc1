"""The commands, put together. This module and the command modules import nothing heavy at their top."""

# ruff: noqa: FBT002 - the command line is made of positional arguments and flags
from __future__ import annotations

from typing import Annotated

import typer

from pixloom.cli import (
    database_commands,
    doctor_command,
    job_commands,
    stack_commands,
    verb_commands,
    workflow_commands,
)
from pixloom.cli.context import Globals, OutputFormat

__all__ = ["app"]

app = typer.Typer(
    name="pixloom",
    help="Durable image-processing workflows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _globals(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option("--server", metavar="URL", help="Server: host:port, grpc://… or http://….")
    ] = None,
    output: Annotated[OutputFormat, typer.Option("-o", "--output", help="How results are shown.")] = OutputFormat.TABLE,
    no_color: Annotated[bool, typer.Option("--no-color", help="Use no colours.")] = False,
) -> None:
    import os

    # no-color.org: a variable that is set and not empty switches colours off.
    context.obj = Globals(server=server, output=output, color=not (no_color or os.environ.get("NO_COLOR")))


stack_commands.register(app)
job_commands.register(app)
verb_commands.register(app)
workflow_commands.register(app)
doctor_command.register(app)
database_commands.register(app)
