"""Whether a workflow document makes sense: everything that is wrong with it, in one answer.

The steps, each of which adds what it finds: the values (`document`), an older dialect is converted (`dialects`), the
form (`drafts`), the declared params (`run_params`), then node by node its op, its edges (`edges`), its params
(`op_params`) and its condition (`conditions`), at last outputs and cycles. Places are JSON pointers into the document
as it was given, even if it was converted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pixloom.errors import InvalidError, Problem
from pixloom.graph.canonical import canonical_json, digest_of
from pixloom.graph.conditions import check_condition
from pixloom.graph.cycles import find_cycles
from pixloom.graph.dialects import convert
from pixloom.graph.document import check_values
from pixloom.graph.drafts import read_draft
from pixloom.graph.edges import Resolution, resolve
from pixloom.graph.limits import MAX_DOCUMENT_BYTES, MAX_NODES
from pixloom.graph.op_params import check_op_params, check_references
from pixloom.graph.pointers import in_document_order, pointer
from pixloom.graph.run_params import check_declarations
from pixloom.graph.suggestions import Suggester

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pixloom.graph.catalogue import Catalogue, OpSpec
    from pixloom.graph.drafts import Draft
    from pixloom.graph.spec import NodeSpec, WorkflowSpec

__all__ = ["ValidationResult", "validate"]


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """What is known of a document.

    Attributes:
        spec: The workflow; None if anything is wrong.
        problems: Everything that is wrong, in document order; pointers lead into the document as it was given.
        notes: What was mapped when an older dialect was converted; empty otherwise.
        sha256: Digest of the canonical form, the name of the version; empty if anything is wrong.
        document: The document in the current dialect: what is stored and digested.
    """

    spec: WorkflowSpec | None
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    sha256: str
    document: dict[str, Any]

    def require(self) -> WorkflowSpec:
        """Return the workflow.

        Raises:
            InvalidError: Anything is wrong (reason INVALID_WORKFLOW, NOT_SUPPORTED or TOO_LARGE), with all problems.
        """
        if self.spec is not None:
            return self.spec
        reasons = {problem.reason for problem in self.problems}
        reason = next((only for only in ("NOT_SUPPORTED", "TOO_LARGE") if reasons == {only}), "INVALID_WORKFLOW")
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        place = f"{first.pointer}: " if first.pointer else ""
        raise InvalidError(f"{place}{first.detail}{more}", reason=reason, problems=self.problems)


def validate(document: Any, catalogue: Catalogue) -> ValidationResult:
    """Return everything there is to say about a document.

    Args:
        document: The document as plain JSON values, as `parse_json` or `parse_yaml` gives it.
        catalogue: The ops it may use.
    """
    if not isinstance(document, dict):
        problem = Problem("", "this must be one JSON object, in braces", "NOT_AN_OBJECT")
        return ValidationResult(None, (problem,), (), "", {})
    problems = check_values(document)
    canonical = b"" if problems else canonical_json(document)
    problems.extend(() if problems else _check_size(document, len(canonical)))
    if problems:
        return ValidationResult(None, in_document_order(problems, document), (), "", document)
    converted = convert(document, catalogue)
    current = converted.document
    suggester = Suggester()
    draft, problems = read_draft(current, suggester)
    problems.extend(check_declarations(draft.params))
    problems.extend(_check_meaning(draft, catalogue, suggester))
    if problems:
        problems = [replace(problem, pointer=converted.original_pointer(problem.pointer)) for problem in problems]
        return ValidationResult(None, in_document_order(problems, document), converted.notes, "", current)
    sha256 = hashlib.sha256(canonical).hexdigest() if current is document else digest_of(current)
    return ValidationResult(draft.spec, (), converted.notes, sha256, current)


def _check_size(document: dict[str, Any], size_bytes: int) -> Iterator[Problem]:
    if size_bytes > MAX_DOCUMENT_BYTES:
        detail = f"the document has {size_bytes:,} bytes; at most {MAX_DOCUMENT_BYTES:,} are allowed"
        yield Problem("", detail, "TOO_LARGE")
    dag = document.get("dag")
    for path, nodes in (
        (("nodes",), document.get("nodes")),
        (("dag", "nodes"), dag.get("nodes") if isinstance(dag, dict) else None),
    ):
        if isinstance(nodes, list) and len(nodes) > MAX_NODES:
            detail = f"the workflow has {len(nodes):,} nodes; at most {MAX_NODES:,} are allowed"
            yield Problem(pointer(*path), detail, "TOO_MANY_NODES")


def _check_meaning(draft: Draft, catalogue: Catalogue, suggester: Suggester) -> Iterator[Problem]:
    names = catalogue.names()
    resolution = resolve(draft, catalogue, suggester)
    yield from resolution.problems
    conditions: list[tuple[str, ...]] = []
    for place, node in enumerate(draft.nodes):
        reads: tuple[str, ...] = ()
        if node is not None:
            op = resolution.ops[place]
            if op is None:
                yield _unknown_op(node, place, catalogue, names, suggester)
            yield from _check_params(node, place, op, draft, suggester)
            reads, problems = check_condition(node, place, resolution.places, draft.params, suggester)
            yield from problems
        conditions.append(reads)
    yield from _check_outputs(draft.outputs, resolution, suggester)
    yield from _check_cycles(draft, resolution, conditions)


def _check_params(
    node: NodeSpec, place: int, op: OpSpec | None, draft: Draft, suggester: Suggester
) -> Iterator[Problem]:
    at = ("nodes", place, "params")
    secrets = {
        pointer(*at, name)
        for name, value in node.params.items()
        if isinstance(value, dict) and set(value) == {"secret_ref"}
    }
    for here in secrets:
        yield Problem(here, "references to secrets are not supported yet", "NOT_SUPPORTED")
    if op is not None:
        for problem in check_op_params(op, node.params, at=at, suggester=suggester):
            if problem.pointer not in secrets:
                yield problem
    yield from check_references(op, node.params, at=at, declared=draft.params, suggester=suggester)


def _unknown_op(node: NodeSpec, place: int, catalogue: Catalogue, names: list[str], suggester: Suggester) -> Problem:
    name, _, version = node.op.partition("@")
    newest = catalogue.get(name)
    if version and newest is not None:
        versions = ", ".join(str(op.version) for op in catalogue if op.name == name)
        detail = f"the op `{name}` has no version {version}; it has {versions}"
    else:
        hint = suggester.hint(name, names) or "; `pixloom ops list` shows all ops"
        detail = f"there is no op `{node.op}`{hint}"
    return Problem(pointer("nodes", place, "op"), detail, "UNKNOWN_OP")


def _check_outputs(outputs: Mapping[str, str], resolution: Resolution, suggester: Suggester) -> Iterator[Problem]:
    for name, source in outputs.items():
        yield from resolution.check_source(source, ("outputs", name), suggester)


def _check_cycles(draft: Draft, resolution: Resolution, conditions: list[tuple[str, ...]]) -> Iterator[Problem]:
    needs = [
        sorted({*before, *(resolution.places[other] for other in reads if other in resolution.places)})
        for before, reads in zip(resolution.needs, conditions, strict=True)
    ]
    for cycle in find_cycles(needs):
        names = [str(draft.ids[place]) for place in [*cycle, cycle[0]]]
        if len(names) > 24:
            names = [*names[:12], f"({len(names) - 24} more)", *names[-12:]]
        way = " → ".join(names)
        itself = "the node comes after itself" if len(cycle) == 1 else "the nodes come after one another in a cycle"
        yield Problem(pointer("nodes", cycle[0]), f"{itself}: {way}; take one of the edges out", "CYCLE")
