"""What was planned a moment ago is not planned again, unless anything about it may have changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pixloom.errors import InvalidError
from pixloom.graph.builtin import builtin_catalogue
from pixloom_scheduler.planning import Planning

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue


def chain(length: int, **more: Any) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = [{"id": "n0", "op": "debug.range", "params": {"count": "${params.count}"}}]
    nodes += [{"id": f"n{at}", "op": "debug.noop", "inputs": {"items": f"n{at - 1}"}} for at in range(1, length)]
    return {"name": "chain", "params": {"count": {"type": "integer", "default": 3}}, "nodes": nodes, **more}


def planning(catalogue: Catalogue | None = None, **options: Any) -> Any:
    ops: Any = SimpleNamespace(current=catalogue or builtin_catalogue())
    return Planning(ops, **options), ops


async def test_jobs_of_one_document_and_params_share_a_plan() -> None:
    plans, _ = planning()
    first = await plans.of(chain(3), {"count": 5})
    again = {key: chain(3)[key] for key in reversed(chain(3))}
    assert (await plans.of(again, {"count": 5})) is first


@pytest.mark.parametrize(
    ("document", "params", "complete"),
    [
        (chain(4), {"count": 5}, True),
        (chain(3), {"count": 6}, True),
        (chain(3), {}, True),
        (chain(3), {"count": 5}, False),
    ],
)
async def test_another_run_has_another_plan(document: Any, params: Any, complete: Any) -> None:
    plans, _ = planning()
    first = await plans.of(chain(3), {"count": 5})
    other = await plans.of(document, params, complete=complete)
    assert other is not first
    assert other.plan.nodes[0].params == {"count": params.get("count", 3)}
    assert len(other.plan.nodes) == len(document["nodes"])


async def test_other_ops_mean_another_plan() -> None:
    plans, ops = planning()
    first = await plans.of(chain(3), {})
    ops.current = ops.current.merged([])
    assert (await plans.of(chain(3), {})) is not first


async def test_what_is_planned_while_the_ops_change_is_not_remembered() -> None:
    plans, ops = planning()
    before = ops.current

    class Changing:
        """Ops that change as soon as somebody has looked at them."""

        @property
        def current(self) -> Any:
            found, ops.current = ops.current, before.merged([])
            return found

    plans = Planning(Changing())  # type: ignore[arg-type]
    first = await plans.of(chain(3), {})
    assert (await plans.of(chain(3), {})) is not first


async def test_the_plans_remembered_have_so_many_nodes_and_the_oldest_go() -> None:
    plans, _ = planning(most_nodes=10)
    first, second = await plans.of(chain(4), {}), await plans.of(chain(5), {})
    assert (await plans.of(chain(4), {})) is first
    await plans.of(chain(2), {})
    assert (await plans.of(chain(4), {})) is first
    assert (await plans.of(chain(5), {})) is not second
    whole = await plans.of(chain(11), {})
    assert (await plans.of(chain(11), {})) is not whole


async def test_large_documents_are_planned_in_a_thread_and_remembered() -> None:
    plans, _ = planning()
    first = await plans.of(chain(400), {})
    assert (await plans.of(chain(400), {})) is first


async def test_what_is_wrong_is_wrong_again() -> None:
    plans, _ = planning()
    for _ in range(2):
        with pytest.raises(InvalidError, match="there is no op"):
            await plans.of({"name": "x", "nodes": [{"id": "a", "op": "debug.nop"}]}, {})
