"""Workflow documents named on the command line: files, built-in workflows, or workflows on a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixloom.errors import InvalidError, NotFoundError

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.validation import ValidationResult
    from pixloom.sdk.client import Client

__all__ = ["catalogue_of", "checked", "document_for", "is_file_name", "load_document", "read_document"]


def is_file_name(name: str) -> bool:
    """Tell whether a word names a file rather than a stored workflow."""
    path = Path(name)
    return path.suffix.lower() in {".json", ".yaml", ".yml"} or "/" in name or path.is_file()


def read_document(path: Path) -> dict[str, Any]:
    """Return the document in a JSON or YAML file.

    Raises:
        InvalidError: If it is missing, cannot be read, or is neither.
    """
    from pixloom.graph.document import parse_json, parse_yaml

    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidError(f"There is no file {path}. {_near(path)}") from error
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
    try:
        return parse_yaml(data) if path.suffix.lower() in {".yaml", ".yml"} else parse_json(data)
    except InvalidError as error:
        raise InvalidError(f"{path}: {error.message}", reason=error.reason, problems=error.problems) from error


def load_document(name: str) -> dict[str, Any]:
    """Return the document of a file, or of a workflow that comes with Pixloom.

    Raises:
        InvalidError: If there is neither, or the file is not valid.
    """
    if is_file_name(name):
        return read_document(Path(name))
    from pixloom.workflows import builtin_workflow

    try:
        return builtin_workflow(name)
    except NotFoundError as error:
        raise InvalidError(f"{name!r} is no file, and {error.message[0].lower()}{error.message[1:]}") from error


def document_for(client: Client, name: str) -> dict[str, Any] | None:
    """Return the document to send for a file or a built-in workflow, or None if the server has a workflow `name`.

    What is stored goes before what comes with Pixloom.

    Raises:
        InvalidError: If a file is not valid.
        NotFoundError: If there is neither.
    """
    if is_file_name(name):
        return read_document(Path(name))
    from pixloom.workflows import builtin_workflow, builtin_workflow_names

    try:
        client.get_workflow(name)
    except NotFoundError:
        if name not in builtin_workflow_names():
            raise
        return builtin_workflow(name)
    return None


def catalogue_of(client: Client) -> Catalogue:
    """Return the ops a server knows, those that executors announced among them."""
    from pixloom.graph.builtin import builtin_catalogue
    from pixloom.graph.catalogue import OpKind, OpSpec, Port, PortType

    specs = []
    for op in client.list_ops():
        name, _, version = op.name.partition("@")
        specs.append(
            OpSpec(
                name=name,
                version=int(version or 1),
                kind=OpKind(op.kind),
                output=PortType(op.output),
                inputs=tuple(Port(port.name, PortType(port.type), port.optional) for port in op.inputs),
                params_schema=op.params_schema,
                summary=op.summary,
                pool=op.pool,
                deterministic=op.deterministic,
                external_effect=op.external_effect,
                expands=op.expands,
            )
        )
    return builtin_catalogue().merged(specs)


def checked(document: dict[str, Any], catalogue: Catalogue, *, name: str) -> ValidationResult:
    """Return what is known of a document that is valid.

    Args:
        document: The document.
        catalogue: The ops it may use.
        name: File or workflow, for the message.

    Raises:
        InvalidError: If anything is wrong, with all problems.
    """
    from pixloom.graph.validation import validate

    result = validate(document, catalogue)
    if result.problems:
        reason = "INVALID_WORKFLOW"
        first = result.problems[0]
        place = f"{first.pointer}: " if first.pointer else ""
        raise InvalidError(f"{name}: {place}{first.detail}", reason=reason, problems=result.problems)
    return result


def _near(path: Path) -> str:
    from difflib import get_close_matches

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"There is no folder {path.parent} either."
    close = get_close_matches(path.name, names, n=1)
    return f"Did you mean {path.parent / close[0]}?" if close else "Check the name."
