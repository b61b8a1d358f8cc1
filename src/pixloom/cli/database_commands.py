"""Commands on the database itself: bring its schema up to date, verify what must hold in it."""

# ruff: noqa: FBT002 - the command line is made of positional arguments and flags
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pixloom.cli.context import globals_of

__all__ = ["register"]

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of a running `pixloom up`; else PIXLOOM_DATABASE_URL says where."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The database of the schedulers.")
    group.command("upgrade")(upgrade)
    group.command("check")(check)
    app.add_typer(group, name="db")


def upgrade(data_dir: DataDir = None) -> None:
    """Run the migrations that are missing; schedulers do the same when they start."""
    from pixloom.cli.service_process import become

    become("pixloom_scheduler.database", ["upgrade"], environment=_environment(data_dir))


def check(
    context: typer.Context,
    data_dir: DataDir = None,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="Nothing is under way: require that every started job has ended.")
    ] = False,
    artifacts: Annotated[
        bool, typer.Option("--artifacts", help="Also read every artifact that results name and compare its hash.")
    ] = False,
) -> None:
    """Verify the invariants of all jobs, also while schedulers run; exit 1 and a list if one is broken."""
    from pixloom.cli.service_process import become

    arguments = ["check", "--output", globals_of(context).output]
    if at_rest:
        arguments.append("--at-rest")
    if artifacts:
        arguments.append("--artifacts")
    become("pixloom_scheduler.database", arguments, environment=_environment(data_dir))


def _environment(data_dir: Path | None) -> dict[str, str]:
    if data_dir is None:
        return {}
    from pixloom.local.postgres import embedded_url

    return {
        "PIXLOOM_DATABASE_URL": embedded_url(data_dir / "postgres"),
        "PIXLOOM_ARTIFACTS_URL": (data_dir.absolute() / "artifacts").as_uri(),
    }
