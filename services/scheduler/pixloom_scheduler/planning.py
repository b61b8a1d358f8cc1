"""From a document and params to a plan; what was planned a moment ago is not planned again.

Many jobs of one workflow are submitted with the same document and the same params. A plan is never changed once it is
made, so they share it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from pixloom.errors import InvalidError
from pixloom.graph.plan_codec import plan_to_json
from pixloom.graph.planner import plan
from pixloom.graph.run_params import resolve_params
from pixloom.graph.validation import validate

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.plan import Plan
    from pixloom.graph.spec import WorkflowSpec
    from pixloom.graph.validation import ValidationResult
    from pixloom_scheduler.catalogue import OpCatalogue

__all__ = ["Planned", "Planning", "checked"]

INLINE_BYTES: Final = 8 * 1024
"""Size up to which a document is planned on the loop, which takes less time than a thread's beginning and end."""

MOST_NODES: Final = 20_000
"""Nodes of the plans that are remembered, in all: one document of the largest size."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A document, ready to run.

    Attributes:
        spec: The workflow.
        sha256: Digest of the document's canonical form.
        document_json: The document in the current dialect.
        params_json: The params of the run, with defaults filled in.
        plan: What is run; shared by all jobs that were planned alike.
        plan_json: The same as it is stored.
    """

    spec: WorkflowSpec
    sha256: str
    document_json: bytes
    params_json: bytes
    plan: Plan
    plan_json: bytes


def checked(result: ValidationResult) -> WorkflowSpec:
    """Return the spec of a valid document.

    Raises:
        InvalidError: With everything that is wrong.
    """
    if result.spec is None or result.problems:
        count = len(result.problems)
        first = result.problems[0] if result.problems else None
        where = f": {first.pointer or '/'}: {first.detail}" if first else ""
        more = f" (and {count - 1} more)" if count > 1 else ""
        reason = "INVALID_WORKFLOW"
        if result.problems and all(problem.reason == "NOT_SUPPORTED" for problem in result.problems):
            reason = "NOT_SUPPORTED"
        raise InvalidError(f"the workflow is not valid{where}{more}", reason=reason, problems=result.problems)
    return result.spec


class Planning:
    """Plans documents with the ops that are known.

    Args:
        catalogue: The ops.
        most_nodes: Nodes of the plans that are remembered, in all.
    """

    def __init__(self, catalogue: OpCatalogue, *, most_nodes: int = MOST_NODES) -> None:
        self._ops = catalogue
        self._most_nodes = most_nodes
        self._known: OrderedDict[bytes, Planned] = OrderedDict()
        self._known_nodes = 0
        self._known_for = catalogue.current

    async def of(self, document: dict[str, Any], given: dict[str, Any], *, complete: bool = True) -> Planned:
        """Return the plan of a run.

        Args:
            document: The workflow as plain JSON values.
            given: Values of its params.
            complete: Whether params without a default must be given.

        Raises:
            InvalidError: If document or params are not valid.
        """
        catalogue = self._ops.current
        encoded = orjson.dumps((document, given, complete), option=orjson.OPT_SORT_KEYS)
        key = hashlib.sha256(encoded).digest()
        known = self._recall(key, catalogue)
        if known is not None:
            return known
        work = partial(_planned, document, given, catalogue, complete=complete)
        made = work() if len(encoded) <= INLINE_BYTES else await asyncio.to_thread(work)
        self._remember(key, made, catalogue)
        return made

    def _recall(self, key: bytes, catalogue: Catalogue) -> Planned | None:
        if catalogue is not self._known_for:
            # An op may be another one now.
            self._known.clear()
            self._known_nodes, self._known_for = 0, catalogue
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, key: bytes, made: Planned, catalogue: Catalogue) -> None:
        if catalogue is not self._known_for or key in self._known:
            return
        self._known[key] = made
        self._known_nodes += len(made.plan.nodes)
        while self._known_nodes > self._most_nodes:
            _, oldest = self._known.popitem(last=False)
            self._known_nodes -= len(oldest.plan.nodes)


def _planned(document: dict[str, Any], given: dict[str, Any], catalogue: Catalogue, *, complete: bool) -> Planned:
    result = validate(document, catalogue)
    spec = checked(result)
    params = resolve_params(spec, given, complete=complete)
    made = plan(spec, params, catalogue, complete=complete)
    return Planned(
        spec=spec,
        sha256=result.sha256,
        document_json=orjson.dumps(result.document),
        params_json=orjson.dumps(params),
        plan=made,
        plan_json=plan_to_json(made),
    )
