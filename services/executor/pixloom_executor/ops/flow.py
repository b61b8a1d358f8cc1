"""Ops that steer items by their records."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pixloom.errors import InvalidError
from pixloom.graph.expressions import ITEM_FIELDS, compile_condition, item_bindings
from pixloom.sdk.op import Filtered, Item, Reject, op

__all__ = ["flow_filter"]


@op("flow.filter", cost_hint_s=0.00005)
def flow_filter(
    item: Item,
    *,
    condition: Annotated[
        str, Field(min_length=1, description="CEL expression over `item` that is true for items to keep")
    ],
    reason: Annotated[
        str, Field(pattern="^[A-Z][A-Z0-9_]*$", description="Machine reason of items that are dropped")
    ] = "CONDITION",
) -> None:
    """Let the items pass for which a condition over the record holds.

    The condition is CEL (cel.dev) and sees `item`: the fields of the record and every attribute by its name, such as
    `item.width >= 640 && item.sharpness > 100.0`. Items for which it is false are FILTERED; those for which it cannot
    be decided, say because an attribute is missing, are REJECTED with CONDITION_FAILED.
    """
    record = {name: getattr(item, name) for name in ITEM_FIELDS}
    record["parents"] = list(item.parents)
    try:
        holds = compile_condition(condition, "item").evaluate(item_bindings(record, item.attributes))
    except InvalidError as error:
        raise Reject("CONDITION_FAILED", str(error)) from error
    if not holds:
        raise Filtered(reason, f"the condition `{condition}` does not hold")
