"""The pages of docs/reference and what makes each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.reference.commands import cli_page
from tools.reference.errors import errors_page
from tools.reference.messages import grpc_page
from tools.reference.ops import ops_page
from tools.reference.schemas import openapi_page, workflow_schema_page
from tools.reference.settings import settings_page
from tools.reference.states import states_page

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PAGES", "REFERENCE", "ROOT"]

ROOT: Final = Path(__file__).parents[2]
REFERENCE: Final = ROOT / "docs" / "reference"

PAGES: Final[dict[str, Callable[[], str]]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "grpc.md": grpc_page,
    "openapi.json": openapi_page,
    "ops.md": ops_page,
    "settings.md": settings_page,
    "states.md": states_page,
    "workflow.v1.schema.json": workflow_schema_page,
}
