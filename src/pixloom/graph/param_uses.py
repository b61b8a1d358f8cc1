"""Which params of a run a node reads: by `${params.x}` in its own params, and in its condition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixloom.graph.expressions import ConditionKind, compile_condition
from pixloom.graph.references import Reference, ReferenceKind, references_in

if TYPE_CHECKING:
    from collections.abc import Collection

    from pixloom.graph.spec import NodeSpec

__all__ = ["params_read"]


def params_read(node: NodeSpec, declared: Collection[str]) -> frozenset[str]:
    """Return the names of the params that a node of a valid workflow reads.

    Args:
        node: The node.
        declared: The params of the workflow; a condition that reads `params` as a whole reads all of them.
    """
    found = {
        reference.name
        for _, reference in references_in(dict(node.params))
        if isinstance(reference, Reference) and reference.kind is ReferenceKind.PARAM
    }
    if node.when is not None:
        for access in compile_condition(node.when, ConditionKind.WHEN).accesses:
            if access.variable == "params":
                found.update(access.path[:1] or declared)
    return frozenset(found)
