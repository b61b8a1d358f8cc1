"""The demo as a person starts it: real processes, real photographs, everything accounted for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow.parquet
import pytest
import pyvips

if TYPE_CHECKING:
    from pathlib import Path

_COUNTS = re.compile(r"([\d,]+) items in .*: ([\d,]+) ok, ([\d,]+) filtered, ([\d,]+) rejected")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pixloom.cli", *words, "--http-port", "0", "--grpc-port", "0"]


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIXLOOM_")}
    return {**inherited, "PIXLOOM_SERVER": "embedded"}  # whatever else runs on this machine


@pytest.mark.parametrize("chaos", [False, True], ids=["calm", "chaos"])
def test_demo_accounts_for_every_photograph(tmp_path: Path, chaos: bool) -> None:  # noqa: FBT001 - a parameter
    words = ["demo", "--exit", *(["--chaos"] if chaos else [])]
    done = subprocess.run(
        _command(*words), cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stderr
    found = _COUNTS.search(done.stderr)
    assert found, done.stderr
    total, ok, filtered, rejected = (int(number) for number in found.groups())
    photos = list((tmp_path / ".pixloom" / "demo-photos").iterdir())
    assert (total, ok + filtered + rejected) == (len(photos), total)
    assert ("Chaos: executor" in done.stderr) is chaos
    for reason in ("TRUNCATED", "TOO_MANY_PIXELS", "NOT_AN_IMAGE", "EMPTY_FILE"):
        assert f"rejected: {reason}" in done.stderr
    out = next((tmp_path / "pixloom-out").iterdir())
    rows = pyarrow.parquet.read_table(out / "catalog.parquet").to_pylist()
    thumbs = [path for path in (out / "thumbs").rglob("*") if path.is_file()]
    sheet = pyvips.Image.new_from_file(str(out / "contact_sheet.jpg"))
    assert len(rows) == len(thumbs) == ok
    assert sheet.width > 1000
    assert "contact_sheet" in done.stdout
    assert not any("_copy" in row["key"] for row in rows)


def test_interrupted_demo_ends_with_130_and_leaves_no_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        _command("demo"), cwd=tmp_path, env=_environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        pids = []
        for line in process.stderr:
            started = re.search(r"up +pid (\d+)", line)
            pids += [int(started[1])] if started else []
            if "stays up" in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 130
    assert len(pids) >= 5
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_run_writes_the_outputs_of_a_persons_own_workflow(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pyvips.Image.black(300, 200).jpegsave(str(photos / "a.jpg"))
    (photos / "broken.jpg").write_text("not an image")
    nodes = [
        {"id": "photos", "op": "source.folder", "params": {"path": "photos"}},
        {"id": "small", "op": "image.thumbnail", "inputs": {"images": "photos"}, "params": {"width": 30}},
    ]
    (tmp_path / "w.json").write_text(json.dumps({"name": "w", "nodes": nodes, "outputs": {"small": "small"}}))
    command = [sys.executable, "-m", "pixloom.cli", "run", "w.json", "-o", "json"]

    done = subprocess.run(
        command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    small = pyvips.Image.new_from_file(str(tmp_path / job["files"]["small"] / "a.jpg"))
    assert (job["state"], small.width, small.height) == ("COMPLETED", 30, 20)
    assert "1 rejected" in done.stderr
