"""`pixloom doctor`: what would keep Pixloom from working on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixloom.cli.context import OutputFormat, globals_of
from pixloom.cli.streams import put

if TYPE_CHECKING:
    from pixloom.local.diagnosis import Finding

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Where the stack would keep everything.")] = Path(
        ".pixloom"
    ),
    http_port: Annotated[int, typer.Option("--http-port", help="Port that REST would have.")] = 7300,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="Port that gRPC would have.")] = 7301,
) -> None:
    """Look for what would keep Pixloom from working here; exit code 1 if something is wrong."""
    import asyncio

    from pixloom.cli.output import print_json
    from pixloom.errors import InvalidError
    from pixloom.exits import ExitCode
    from pixloom.local.diagnosis import Finding, Verdict, examine
    from pixloom.local.options import LocalStackOptions

    try:
        options = LocalStackOptions.from_settings(data_dir=data_dir, http_port=http_port, grpc_port=grpc_port)
    except InvalidError as error:
        # Nothing else can be looked at: where things are would be a guess.
        findings = [Finding("settings", Verdict.WRONG, error.message)]
    else:
        findings = asyncio.run(examine(options))
    output = globals_of(context).output
    if output is OutputFormat.TABLE:
        _show(findings)
    else:
        entries = [{"name": f.name, "verdict": str(f.verdict), "detail": f.detail} for f in findings]
        print_json({"findings": entries}, lines=output is OutputFormat.JSONL)
    wrong = any(finding.verdict is Verdict.WRONG for finding in findings)
    raise typer.Exit(ExitCode.FAILED if wrong else ExitCode.OK)


def _show(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        put(f"{finding.verdict:<6} {finding.name:<{width}}  {finding.detail}")
