"""Processes: who they are, that they end with us, and that only those recorded are ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pixloom.local.processes import end, end_leftover, find, identify, spawn, wait_exit
from pixloom.local.supervision import clean_up_records

if TYPE_CHECKING:
    from collections.abc import Iterator

SLEEPER = (sys.executable, str(Path(__file__).with_name("stand_in.py")), "sleeper")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_start_and_command() -> None:
    own = find(os.getpid())
    assert own is not None
    assert own == find(os.getpid())
    assert own.started
    assert "pytest" in own.command or "python" in own.command


def test_nobody_runs_under_a_pid_that_ended_or_never_was(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    if sys.platform == "linux":  # there the zombie itself is seen
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    else:
        sleeper.wait()
    assert find(sleeper.pid) is None
    assert find(0) is None
    assert find(-1) is None


async def test_a_spawned_process_leads_its_session_and_is_identified_by_its_own_words(tmp_path: Path) -> None:
    process = spawn(SLEEPER, env={}, log=tmp_path / "log")
    try:
        assert os.getsid(process.pid) == process.pid
        identity = identify(process)
        assert identity is not None
        assert identity.command == " ".join(SLEEPER[1:])
    finally:
        assert await end(process)
    assert identify(process) is None
    assert process.returncode is not None


async def test_waiting_for_a_process_that_runs_on_says_so(tmp_path: Path) -> None:
    process = spawn(SLEEPER, env={}, log=tmp_path / "log")
    assert not await wait_exit(process, 0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert await wait_exit(process, 10)
    assert process.returncode == -signal.SIGKILL


def test_only_the_process_that_was_recorded_is_ended(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    identity = find(sleeper.pid)
    assert identity is not None
    words = " ".join(SLEEPER[1:])
    for name, started, command in (("other-time", "earlier", words), ("other-words", identity.started, "else")):
        record = {"pid": sleeper.pid, "started": started, "command": command, "signal": int(signal.SIGTERM)}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "strange.json").write_text("[]")
    assert clean_up_records(tmp_path) == 0
    assert sleeper.poll() is None
    assert not list(tmp_path.iterdir())
    record = {"pid": sleeper.pid, "started": identity.started, "command": words, "signal": int(signal.SIGTERM)}
    (tmp_path / "right.json").write_text(json.dumps(record))
    assert clean_up_records(tmp_path) == 1
    assert sleeper.wait(10) == -signal.SIGTERM


def test_a_leftover_that_ignores_the_first_signal_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    identity = find(process.pid)
    assert identity is not None
    assert end_leftover(identity, ask_with=signal.SIGTERM, timeout_s=0.1)
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    assert not end_leftover(identity, ask_with=signal.SIGTERM)
