from __future__ import annotations

import re

from pixloom.telemetry import names

PUBLISHED = {
    "SPAN_JOB": "pixloom.job",
    "SPAN_NODE": "pixloom.node",
    "SPAN_DISPATCH": "pixloom.dispatch",
    "SPAN_TASK": "pixloom.task",
    "SPAN_OP": "pixloom.op",
    "SPAN_REPORT": "pixloom.report",
    "ATTR_JOB_ID": "pixloom.job.id",
    "ATTR_WORKFLOW": "pixloom.workflow",
    "ATTR_NODE_ID": "pixloom.node.id",
    "ATTR_OP": "pixloom.op",
    "ATTR_ATTEMPT": "pixloom.attempt",
    "ATTR_POOL": "pixloom.pool",
    "ATTR_ITEMS": "pixloom.items",
}


def _named(prefix: str) -> list[str]:
    return [value for name, value in vars(names).items() if name.startswith(prefix)]


def test_published_names_never_change() -> None:
    assert {name: getattr(names, name) for name in PUBLISHED} == PUBLISHED


def test_names_of_a_kind_are_unique() -> None:
    for prefix in ("SPAN_", "ATTR_", "METRIC_"):
        assert len(_named(prefix)) == len(set(_named(prefix)))


def test_metric_names_are_valid_and_carry_the_prefix() -> None:
    assert all(re.fullmatch(r"pixloom_[a-z_]+", name) for name in _named("METRIC_"))
