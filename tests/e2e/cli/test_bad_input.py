"""Bad input ends with exit code 2 before anything runs, and says what, where, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def _pixloom(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXLOOM_")}
    environment["PIXLOOM_SERVER"] = "embedded"  # whatever else runs on this machine
    environment |= settings
    command = [sys.executable, "-m", "pixloom.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _workflow(*nodes: dict[str, Any]) -> str:
    return json.dumps({"name": "w", "nodes": nodes})


_SOURCE = {"id": "a", "op": "source.folder", "params": {"path": "photos"}}
_BAD = {
    "cycle": (
        _workflow(
            {"id": "a", "op": "image.autorotate", "inputs": {"images": "b"}},
            {"id": "b", "op": "image.autorotate", "inputs": {"images": "a"}},
        ),
        "cycle",
    ),
    "unknown op": (_workflow({**_SOURCE, "op": "source.foldr"}), "did you mean `source.folder`"),
    "unknown param": (_workflow({**_SOURCE, "params": {"path": "x", "recursiv": True}}), "`recursive`"),
    "wrong type": (_workflow({**_SOURCE, "params": {"path": 3}}), "/nodes/0/params/path"),
    "no JSON": ("{", "line 1"),
    "missing folder": (_workflow(_SOURCE), "There is no folder photos"),
}


@pytest.mark.parametrize("name", _BAD)
def test_bad_workflow_ends_with_2_before_anything_runs(tmp_path: Path, name: str) -> None:
    text, hint = _BAD[name]
    (tmp_path / "w.json").write_text(text)

    done = _pixloom(tmp_path, "run", "w.json")

    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["w.json"]


def test_missing_file_ends_with_2_and_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text("{}")

    done = _pixloom(tmp_path, "run", "flw.json")

    assert (done.returncode, done.stderr) == (2, "Error: There is no file flw.json. Did you mean flow.json?\n")


@pytest.mark.parametrize("words", [("run", "photo-catalog", "here"), ("demo", "here")])
def test_folder_without_images_ends_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "here").mkdir()

    done = _pixloom(tmp_path, *words)

    assert done.returncode == 2
    assert "The folder here has no images" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("words", [("run", "w.json"), ("up",), ("lint", "w.json"), ("plan", "w.json")])
def test_missing_module_of_own_ops_ends_with_2_before_anything_starts(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "w.json").write_text(_workflow({"id": "a", "op": "mine.mark"}))

    done = _pixloom(tmp_path, *words, "--import", "no_such.ops")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: There is no module no_such.ops to import ops from")
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["w.json"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("import no_such_package", "no_such_package"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("", "has no op in it"),
    ],
)
def test_module_that_serves_no_ops_ends_with_2(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "mine.py").write_text(text)

    done = _pixloom(tmp_path, "up", "--import", "mine")

    assert done.returncode == 2
    assert hint in done.stderr
    assert not (tmp_path / ".pixloom").exists()


@pytest.mark.parametrize("words", [("run", "w.json"), ("demo",)])
def test_place_for_outputs_that_cannot_be_one_ends_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "w.json").write_text(_workflow({"id": "a", "op": "debug.range", "params": {"count": 1}}))
    (tmp_path / "taken").touch()

    done = _pixloom(tmp_path, *words, "--out", "taken/deep")

    assert (done.returncode, done.stdout) == (2, "")
    assert "taken is no folder" in done.stderr
    assert not (tmp_path / ".pixloom").exists()


@pytest.mark.parametrize(
    ("service", "variable", "value"),
    [
        ("scheduler", "PIXLOOM_DATABASE_URL", "mysql://secret@host/x"),
        ("scheduler", "PIXLOOM_DATABASE_URL", "postgresql://user:secret@host:99999/x"),
        ("scheduler", "PIXLOOM_SCHEDULER_LISTEN", "0.0.0.0:7311"),
        ("scheduler", "PIXLOOM_SCHEDULER_ADVERTISE", "0.0.0.0:7311"),
        ("scheduler", "PIXLOOM_LOG_LEVEL", "loud"),
        ("executor", "PIXLOOM_NATS_URL", "http://secret@host"),
        ("executor", "PIXLOOM_SCHEDULER_ADDRESSES", "here"),
        ("executor", "PIXLOOM_EXECUTOR_IMPORTS", "no_such.ops"),
        ("gateway", "PIXLOOM_GATEWAY_GRPC_LISTEN", "127.0.0.1"),
        ("gateway", "PIXLOOM_ARTIFACTS_URL", "ftp://host"),
    ],
)
def test_service_with_a_bad_setting_ends_with_2_and_one_sentence(
    tmp_path: Path, service: str, variable: str, value: str
) -> None:
    done = _pixloom(tmp_path, service, "start", **{variable: value})

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: the {service} cannot run. ")
    assert variable in line or "no_such.ops" in line
    assert "secret" not in line


def test_scheduler_without_a_database_ends_with_3(tmp_path: Path) -> None:
    done = _pixloom(tmp_path, "scheduler", "start", PIXLOOM_DATABASE_URL="postgresql://127.0.0.1:9/x")

    assert done.returncode == 3
    assert "PIXLOOM_DATABASE_URL" in done.stderr.splitlines()[-1]


def test_lint_lists_all_problems_as_json(tmp_path: Path) -> None:
    nodes = ({**_SOURCE, "op": "source.foldr"}, {"id": "b", "op": "image.thumbnail", "inputs": {"images": "c"}})
    (tmp_path / "w.json").write_text(_workflow(*nodes))

    done = _pixloom(tmp_path, "lint", "w.json", "-o", "json")

    assert done.returncode == 2
    assert {problem["pointer"] for problem in json.loads(done.stdout)["problems"]} >= {
        "/nodes/0/op",
        "/nodes/1/inputs/images",
    }


def test_built_in_workflow_passes_lint(tmp_path: Path) -> None:
    done = _pixloom(tmp_path, "lint", "photo-catalog")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("photo-catalog: valid, ")


@pytest.mark.parametrize("words", [("nonsense",), ("get",), ("list", "--limit", "none"), ("up", "--executors", "x")])
def test_usage_errors_end_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert _pixloom(tmp_path, *words).returncode == 2


def test_server_that_does_not_answer_ends_with_3(tmp_path: Path) -> None:
    done = _pixloom(tmp_path, "--server", "127.0.0.1:9", "list")

    assert done.returncode == 3
    assert "pixloom up" in done.stderr


def test_op_is_shown_without_a_server(tmp_path: Path) -> None:
    done = _pixloom(tmp_path, "ops", "show", "image.thumbnail")

    assert done.returncode == 0
    assert "width" in done.stdout
