"""`pixloom run`: everything is checked first, then the job runs to its end and its outputs are written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixloom.cli.context import OutputFormat
from pixloom.cli.destination import require_writable
from pixloom.cli.documents import catalogue_of, checked, load_document
from pixloom.cli.ending import print_failure, print_paths, print_tally
from pixloom.cli.execution import run_document
from pixloom.cli.interruption import run_interruptibly
from pixloom.cli.output import print_json
from pixloom.cli.sources import bind_images, require_images, source_folders
from pixloom.cli.streams import say
from pixloom.errors import InvalidError
from pixloom.exits import ExitCode
from pixloom.graph.builtin import builtin_catalogue
from pixloom.sdk.client import Client
from pixloom.sdk.connection import answering_server, connect
from pixloom.sdk.own_ops import own_op_specs
from pixloom.settings import ExecutorSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixloom.cli.context import Globals
    from pixloom.graph.catalogue import Catalogue, OpSpec

__all__ = ["run_file"]


def run_file(
    name: str,
    images: Sequence[Path],
    params: Mapping[str, Any],
    *,
    out: Path,
    data_dir: Path,
    options: Globals,
    imports: Sequence[str] = (),
) -> int:
    """Run a workflow file and wait for its end.

    Args:
        name: File, or name of a built-in workflow.
        images: Folders for its source.
        params: Params of the run.
        out: Where the folder of the job is made.
        data_dir: Data directory of a stack that is started for the run.
        options: The global options.
        imports: Modules with ops of the user's own, for a stack that is started for the run.

    Returns:
        The exit code.

    Raises:
        InvalidError: If anything is wrong with the workflow, the params, the images, the modules or the place of the
            outputs, before anything runs.
        PixloomError: If the run was not possible.
    """
    document = load_document(name)
    folders = [require_images(folder) for folder in images]
    server = asyncio.run(answering_server(options.server))
    if server is None and not imports:
        imports = load_settings(ExecutorSettings).executor_imports
    own = own_op_specs(imports) if imports else []
    if server is None:
        catalogue = builtin_catalogue().merged(own)
    else:
        with Client(server) as client:
            catalogue = catalogue_of(client)
        _require_served(own, catalogue, server=server)
    current, given = _checked(document, folders, params, catalogue, name=name)
    require_writable(out)
    roots = tuple(source_folders(current, given))
    if server is None:
        # A server may see other folders than this process; a stack of our own sees the same.
        roots = tuple(_root_of(folder) for folder in roots)
    return run_interruptibly(
        _run(
            current,
            given,
            server=server,
            roots=roots,
            imports=tuple(imports),
            out=out,
            data_dir=data_dir,
            options=options,
        )
    )


def _require_served(own: Sequence[OpSpec], catalogue: Catalogue, *, server: str) -> None:
    missing = [spec.ref for spec in own if catalogue.get(spec.ref) is None]
    if missing:
        raise InvalidError(
            f"The server at {server} does not know {', '.join(missing)}: --import is for a stack that is started for "
            "the run. Start an executor there with `pixloom executor start --import MODULE`, or run with "
            "--server embedded."
        )


def _checked(
    document: dict[str, Any], folders: Sequence[Path], params: Mapping[str, Any], catalogue: Catalogue, *, name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    from pixloom.graph.run_params import resolve_params

    result = checked(document, catalogue, name=name)
    current, given = result.document, dict(params)
    if folders:
        current, bound = bind_images(current, folders)
        twice = bound.keys() & given.keys()
        if twice:
            raise InvalidError(f"The param {twice.pop()} is given by -p and by the images. Give one of them.")
        given.update(bound)
    resolve_params(checked(current, catalogue, name=name).require(), given)
    return current, given


async def _run(
    document: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    server: str | None,
    roots: tuple[Path, ...],
    imports: tuple[str, ...],
    out: Path,
    data_dir: Path,
    options: Globals,
) -> int:
    async with connect(server, source_roots=roots, imports=imports, data_dir=data_dir, announce=say) as connection:
        ended = await run_document(
            connection.client,
            document,
            params,
            out=out,
            color=options.color,
            cancel_on_interrupt=connection.stack is not None,
        )
    print_tally(ended.job, ended.nodes)
    print_failure(ended.job)
    if options.output is OutputFormat.TABLE:
        print_paths(ended.paths)
    else:
        files = {output: str(path) for output, path in ended.paths.items()}
        lines = options.output is OutputFormat.JSONL
        print_json({**ended.job.model_dump(mode="json"), "files": files}, lines=lines)
    return ExitCode.OK if ended.is_completed else ExitCode.FAILED


def _root_of(folder: Path) -> Path:
    """Return the source root below which a stack finds a folder that a workflow names, once it was checked.

    Sources look for relative paths below their roots, as people mean them relative to where they are.
    """
    found = require_images(folder)
    return found if folder.is_absolute() else Path.cwd()
