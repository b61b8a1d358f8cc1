"""`pixloom run --import`: ops of a person's own, in a stack that is started for the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MODULE = """
from pixloom.sdk.op import Item, op

@op("mine.mark")
def mark(item: Item) -> dict:
    \"\"\"Say whose it is.\"\"\"
    return {"whose": "mine"}

@op("mine.halve")
def halve(item: Item) -> list[Item]:
    \"\"\"Make two of one.\"\"\"
    return [item, item]
"""
_WORKFLOW: dict[str, Any] = {
    "name": "own",
    "nodes": [
        {"id": "numbers", "op": "debug.range", "params": {"count": 3}},
        {"id": "marked", "op": "mine.mark", "inputs": {"items": "numbers"}},
    ],
    "outputs": {"marked": "marked"},
}


def test_plan_says_where_an_op_of_ones_own_ends_a_stage(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_MODULE)
    halves = {"id": "halves", "op": "mine.halve", "inputs": {"items": "numbers"}}
    marked = {"id": "marked", "op": "mine.mark", "inputs": {"items": "halves"}}
    document = {"name": "own", "nodes": [_WORKFLOW["nodes"][0], halves, marked]}
    (tmp_path / "w.json").write_text(json.dumps(document))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXLOOM_")}
    environment["PIXLOOM_SERVER"] = "embedded"
    command = [sys.executable, "-m", "pixloom.cli", "plan", "w.json", "--import", "mine"]

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "marked" in last
    assert last.rstrip().endswith("halves may make several items of one")


def test_workflow_with_own_ops_runs_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_MODULE)
    (tmp_path / "w.json").write_text(json.dumps(_WORKFLOW))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXLOOM_")}
    environment["PIXLOOM_SERVER"] = "embedded"
    command = [sys.executable, "-m", "pixloom.cli", "run", "w.json", "--import", "mine"]

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "pixloom-out").glob("*/marked.jsonl")
    assert [json.loads(line)["attributes"] for line in written.read_text().splitlines()] == [{"whose": "mine"}] * 3
