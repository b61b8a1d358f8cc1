"""`pixloom`: reads the arguments, runs the command, and turns what went wrong into a message and an exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from pixloom.cli.arguments import global_options_first
from pixloom.cli.streams import say
from pixloom.errors import PixloomError
from pixloom.exits import ExitCode, exit_code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words behind the program's name; those of the process if None.

    Returns:
        Exit code: 0 ok, 1 the job failed or the machine is at fault, 2 usage or invalid workflow, 3 unreachable, 130
        interrupted.
    """
    from typer.exceptions import Abort, TyperException
    from typer.main import get_command

    from pixloom.cli.app import app

    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal of another encoding cannot show is escaped, as on the error stream.
        sys.stdout.reconfigure(errors="backslashreplace")
    words = global_options_first(sys.argv[1:] if arguments is None else arguments)
    try:
        code = get_command(app).main(args=words or ["--help"], prog_name="pixloom", standalone_mode=False)
        sys.stdout.flush()
    except (Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except TyperException as error:
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "pixloom"
        say(f"Error: {error.format_message()} `{verb} --help` shows what there is.")
        return ExitCode.INVALID
    except PixloomError as error:
        from pixloom.cli.complaint import show_error

        show_error(error)
        return exit_code_of(error)
    except BrokenPipeError:
        # The reader has gone, as with `pixloom list | head`. Nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    return int(code) if isinstance(code, int) else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
