"""Works out conditions and references of nodes that are about to start, off the loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from pixloom.errors import PixloomError
from pixloom.graph.expressions import compile_condition
from pixloom.graph.references import resolve_node_params
from pixloom_scheduler.core.events import NodeResolved

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pixloom_scheduler.live import LiveJob

__all__ = ["Resolver"]


class Resolver:
    """Answers `ResolutionAsked` with `NodeResolved`.

    Args:
        run_off_loop: Runs the work where it does not hold up the loop.
    """

    def __init__(
        self, *, run_off_loop: Callable[[Callable[[], NodeResolved]], Awaitable[NodeResolved]] = asyncio.to_thread
    ) -> None:
        self._run_off_loop = run_off_loop
        self._log = structlog.get_logger("resolver")

    async def resolve(self, live: LiveJob, stage_index: int) -> NodeResolved:
        """Return what the condition and references of a stage come to now."""
        run = live.run
        resolved = partial(NodeResolved, stage=stage_index, generation=run.generation)
        nodes = {
            node.plan.id: {
                "state": str(node.state),
                "ok": node.ok,
                "filtered": node.filtered,
                "rejected": node.rejected,
                "value": node.value,
            }
            for node in run.nodes
            if node.state.is_terminal
        }
        stage = run.stages[stage_index]
        plans = {index: run.plan.nodes[index] for index in stage.plan.nodes}
        params = orjson.loads(live.header.params_json)

        def work() -> NodeResolved:
            when = next((plan.when for plan in plans.values() if plan.when), "")
            if when and not compile_condition(when, "when").evaluate({"nodes": nodes, "params": params}):
                return resolved(run=False)
            values: dict[str, Any] = {name: node["value"] for name, node in nodes.items()}
            dynamic = {index: plan for index, plan in plans.items() if plan.dynamic}
            return resolved(
                run=True, params={index: resolve_node_params(plan.params, values) for index, plan in dynamic.items()}
            )

        try:
            return await self._run_off_loop(work)
        except PixloomError as error:
            return resolved(run=False, failure=("UNRESOLVED", error.message))
        except Exception as error:  # noqa: BLE001 - an expression fails its own node, never the loop
            self._log.exception("resolution_failed", job=live.header.id, stage=stage_index)
            detail = f"its condition or references could not be worked out: {error}"
            return resolved(run=False, failure=("UNRESOLVED", detail))
