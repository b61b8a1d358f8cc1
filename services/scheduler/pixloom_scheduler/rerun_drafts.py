"""Says how a job runs that is made of an old one from a node on: what runs again, by which plan, and what is taken over.

What runs again is the node's stage and all behind it; nodes that share its stage run with it, as nothing lies between
them that could be taken over. The rest must have ended well in the old job. Params may change as long as only the node
and nodes behind it read them. With the old params the old plan stays, to the letter. With others the document is planned
again, and the new plan takes the place of the old one where nodes run again; both must cut the job alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from pixloom.errors import InvalidError, Problem, StateConflictError
from pixloom.graph.param_uses import params_read
from pixloom.graph.plan_codec import plan_from_json, plan_to_json
from pixloom.graph.planner import plan
from pixloom.graph.pointers import pointer
from pixloom.graph.run_params import resolve_params
from pixloom.graph.validation import validate
from pixloom.v1 import job_pb2
from pixloom_scheduler.core.generations import is_carried_end, nodes_from, stages_from
from pixloom_scheduler.core.states import NodeState
from pixloom_scheduler.journal.inheritance import Inheritance
from pixloom_scheduler.planning import checked

if TYPE_CHECKING:
    from pixloom.graph.catalogue import Catalogue
    from pixloom.graph.plan import Plan
    from pixloom_scheduler.journal.reader import StoredJob

__all__ = ["Draft", "Rerun", "draft"]


@dataclass(frozen=True, slots=True)
class Rerun:
    """A request to run a job again.

    Attributes:
        project: Project of the caller.
        job_id: The old job.
        from_node: Node from which on it runs again; empty means all of it.
        given: Params, merged over the old ones.
        request_id: Id of the call.
        trace_context: W3C headers of the call.
    """

    project: str
    job_id: str
    from_node: str
    given: dict[str, Any]
    request_id: str
    trace_context: dict[str, str]

    @property
    def digest(self) -> str:
        """Digest of what makes it the same request, whatever has become of the old job."""
        body = ("rerun", self.job_id, self.from_node, self.given)
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Draft:
    """How a job from a node on is to run.

    Attributes:
        plan: Its plan.
        plan_json: The same as it is stored.
        params_json: Its params.
        inheritance: What it takes over.
    """

    plan: Plan
    plan_json: bytes
    params_json: bytes
    inheritance: Inheritance


def draft(rerun: Rerun, stored: StoredJob, document: bytes, nodes: list[job_pb2.Node], catalogue: Catalogue) -> Draft:
    """Return how a job runs that is made of another from a node on.

    Args:
        rerun: What is asked for.
        stored: The old job, which has ended.
        document: Its document.
        nodes: Its nodes as they ended.
        catalogue: The ops there are now.

    Raises:
        InvalidError: If it has no such node, or params do not fit or touch a node whose results are kept.
        StateConflictError: If it has no complete results of a node that would not run again, or its ops have changed so
            that other params cannot be planned to fit.
    """
    old = plan_from_json(stored.plan)
    places = {node.id: place for place, node in enumerate(old.nodes)}
    if rerun.from_node not in places:
        known = ", ".join(list(places)[:20])
        detail = f"job {stored.id} has no node {rerun.from_node[:100]}; it has {known}"
        raise InvalidError(detail, problems=(Problem("/from", detail),))
    again = stages_from(old, places[rerun.from_node])
    _require_results(rerun, stored, old, again, nodes)
    before = orjson.loads(stored.params)
    inheritance = Inheritance(old=stored, plan=old, again=again, from_node=rerun.from_node)
    if _canonical({**before, **rerun.given}) == _canonical(before):
        return Draft(old, stored.plan, stored.params, inheritance)
    spec = checked(validate(orjson.loads(document), catalogue))
    params = resolve_params(spec, {**before, **rerun.given})
    changed = {name for name, value in params.items() if _canonical(value) != _canonical(before.get(name))}
    kept = set(range(len(old.nodes))) - nodes_from(old, places[rerun.from_node])
    problems = [
        Problem(
            pointer("params", name),
            f"node {spec.nodes[place].id}, whose results are kept, reads the param `{name}`; leave it as it was, "
            f"or rerun from {spec.nodes[place].id} on",
            "PARAM_OF_KEPT_NODE",
        )
        for place in sorted(kept)
        for name in sorted(params_read(spec.nodes[place], spec.params) & changed)
    ]
    if problems:
        raise InvalidError(problems[0].detail, reason="INVALID_PARAMS", problems=tuple(problems))
    fresh = plan(spec, params, catalogue)
    if _shape(fresh) != _shape(old):
        raise StateConflictError(
            f"the ops of job {stored.id} have changed since it was planned, so that its results do not fit a new plan; "
            "rerun it without `from`, or with its old params",
            metadata={"state": stored.state},
        )
    merged = replace(
        fresh,
        nodes=tuple(new if new.stage in again else kept for new, kept in zip(fresh.nodes, old.nodes, strict=True)),
        stages=tuple(new if new.index in again else kept for new, kept in zip(fresh.stages, old.stages, strict=True)),
    )
    return Draft(merged, plan_to_json(merged), orjson.dumps(params), inheritance)


def _require_results(
    rerun: Rerun, stored: StoredJob, old: Plan, again: frozenset[int], nodes: list[job_pb2.Node]
) -> None:
    for node in nodes:
        state = NodeState(job_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_"))
        if old.nodes[node.step_index].stage in again or is_carried_end(state, node.error.reason):
            continue
        raise StateConflictError(
            f"job {stored.id} has no complete results of node {node.id}, which is {state} and would not run again from "
            f"{rerun.from_node} on; rerun from {node.id} on, or recover the job first",
            metadata={"state": stored.state, "node": node.id},
        )


def _shape(plan: Plan) -> tuple[Any, ...]:
    """Return what must be alike in two plans, so that results by the one can be read by the other."""
    nodes = tuple((node.id, node.stage) for node in plan.nodes)
    return nodes, tuple((stage.kind, stage.nodes, stage.inputs, stage.after) for stage in plan.stages)


def _canonical(value: Any) -> bytes:
    """Return a value so that equal ones are equal, and 1, 1.0 and true are not."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
