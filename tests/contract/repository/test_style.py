"""The whole tree keeps to the linter's and the formatter's rules."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.support.repository import ROOT

RUFF = Path(sysconfig.get_path("scripts")) / "ruff"


@pytest.mark.parametrize("words", [("check",), ("format", "--check")], ids=["check", "format"])
def test_tree_is_clean(words: tuple[str, ...]) -> None:
    command = [str(RUFF), *words, "--no-cache", "--output-format=concise", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_rule_that_is_left_out_has_a_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["tool"]["ruff"]["lint"]["select"] == ["ALL"]
    section = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.pydocstyle]")]
    rules = [line for line in section.splitlines() if line.lstrip().startswith('"') and "]" not in line.split("#")[0]]
    assert [line for line in rules if "#" not in line and not line.rstrip().endswith("[")] == []


def test_types_fit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}", "--no-error-summary"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stdout
