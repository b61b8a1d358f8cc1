"""cli.md: the commands, as their own help describes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import typer

from pixloom.cli.app import app
from pixloom.exits import ExitCode
from tools.reference.markdown import code, page, table

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cli_page"]

_EXITS = {
    ExitCode.OK: "it worked",
    ExitCode.FAILED: "the job failed or its state does not allow this, or the machine is at fault",
    ExitCode.INVALID: "wrong use, or a document that is not valid",
    ExitCode.UNREACHABLE: "the server cannot be reached",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}


_REPEATED: Final = re.compile(r"<list\[(\w+)\]>")


def _params(command: Any, path: str) -> list[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    records = [param.get_help_record(context) for param in command.params if not getattr(param, "hidden", False)]
    rows = [
        (code(_REPEATED.sub(r"<\1>", record[0]).replace("<Path>", "<path>")), record[1]) for record in records if record
    ]
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    return [f"    {usage}", table(("argument or option", "meaning"), rows)]


def _sections(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    yield f"## {path}"
    yield command.help or ""
    yield from _params(command, path)
    for name, child in children.items():
        if not child.hidden:
            yield from _sections(child, f"{path} {name}")


def cli_page() -> str:
    """Return the page."""
    exits = table(("exit code", "meaning"), ((str(int(exit_code)), _EXITS[exit_code]) for exit_code in ExitCode))
    return page("Command line", exits, *_sections(typer.main.get_command(app), "pixloom"))
