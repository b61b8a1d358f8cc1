"""The resources as REST, CLI and SDK show them; field names are the contract.

Times are aware UTC datetimes (RFC 3339 in JSON), durations end in `_s` and are seconds, states are upper-case words.
`X.from_proto(message)` makes a resource from its message in `pixloom.v1`; what the message leaves empty is None.
"""

from __future__ import annotations

from pixloom.resources.event import Event, Snapshot
from pixloom.resources.executor import Executor
from pixloom.resources.item import Artifact, Item, ItemCounts, ItemState
from pixloom.resources.job import ACTIVE_STATES, FINAL_STATES, Job, JobError, JobState, TaskCounts
from pixloom.resources.node import Attempt, AttemptOutcome, Node, NodeState
from pixloom.resources.op import Op, Port
from pixloom.resources.output import Output, OutputKind, Results
from pixloom.resources.page import Page
from pixloom.resources.problem import PROBLEM_TYPE, PlaceProblem, Problem
from pixloom.resources.workflow import Plan, Stage, Validation, Workflow

__all__ = [
    "ACTIVE_STATES",
    "FINAL_STATES",
    "PROBLEM_TYPE",
    "Artifact",
    "Attempt",
    "AttemptOutcome",
    "Event",
    "Executor",
    "Item",
    "ItemCounts",
    "ItemState",
    "Job",
    "JobError",
    "JobState",
    "Node",
    "NodeState",
    "Op",
    "Output",
    "OutputKind",
    "Page",
    "PlaceProblem",
    "Plan",
    "Port",
    "Problem",
    "Results",
    "Snapshot",
    "Stage",
    "TaskCounts",
    "Validation",
    "Workflow",
]
