"""The `when` of a node: what it reads must be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.errors import InvalidError, Problem
from pixloom.graph.expressions import NODE_FIELDS, ConditionKind, Expression, compile_condition
from pixloom.graph.pointers import pointer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pixloom.graph.expressions import Access
    from pixloom.graph.spec import NodeSpec
    from pixloom.graph.suggestions import Suggester

__all__ = ["check_condition"]


def check_condition(
    node: NodeSpec, place: int, places: Mapping[str, int], declared: Collection[str], suggester: Suggester
) -> tuple[tuple[str, ...], list[Problem]]:
    """Return the ids of the nodes that the `when` of a node reads, and what is wrong with it.

    Args:
        node: The node.
        place: Its place in the document.
        places: Places of all nodes by id.
        declared: Names of the workflow's params.
        suggester: Finds names for misspelt ones.
    """
    if node.when is None:
        return (), []
    here = pointer("nodes", place, "when")
    try:
        condition = compile_condition(node.when, ConditionKind.WHEN)
    except InvalidError as error:
        return (), [Problem(here, error.message, "INVALID_CONDITION")]
    problems = [
        Problem(here, f"{detail}\n{condition.caret(access.offset)}", reason)
        for access, detail, reason in _mistakes(condition, places, declared, suggester)
    ]
    return condition.node_ids, problems


def _mistakes(
    condition: Expression, places: Mapping[str, int], declared: Collection[str], suggester: Suggester
) -> Iterator[tuple[Access, str, str]]:
    for access in condition.accesses:
        match access.variable, access.path:
            case "nodes", (node, field, *_):
                if node not in places:
                    hint = suggester.hint(node, places)
                    yield access, f"there is no node `{node}`{hint}", "UNKNOWN_NODE"
                elif field not in NODE_FIELDS:
                    hint = suggester.hint(field, NODE_FIELDS) or f"; it has {', '.join(NODE_FIELDS)}"
                    yield access, f"a node has no field `{field}`{hint}", "INVALID_CONDITION"
            case "nodes", _:
                detail = 'name the node and a field of it, as in `nodes.valid.ok` or `nodes["my-node"].ok`'
                yield access, detail, "INVALID_CONDITION"
            case "params", (name, *_):
                if name not in declared:
                    hint = suggester.hint(name, declared) or "; declare it under /params"
                    yield access, f"the workflow declares no param `{name}`{hint}", "UNKNOWN_PARAM_REFERENCE"
            case _:
                continue
