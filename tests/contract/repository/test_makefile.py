"""`make` explains itself, and works with the make that macOS has (GNU make 3.81)."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.repository import ROOT

TEXT = (ROOT / "Makefile").read_text(encoding="utf-8")
EXPLAINED = re.findall(r"(?m)^([a-z-]+):.*## (.+)$", TEXT)
NEWER_THAN_3_81 = {
    "assignment from a shell": r"(?m)^\w+\s*!=",
    "POSIX assignment": r":::?:=",
    "one shell for a recipe": r"\.ONESHELL",
    "grouped targets": r"&:",
    "file function": r"\$\(file ",
    "guile": r"\$\(guile ",
    "let function": r"\$\((let|intcmp) ",
    "undefine": r"(?m)^(override )?undefine ",
    "extra prerequisites": r"\.EXTRA_PREREQS",
}


def make(*words: str) -> str:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("words", [(), ("help",)], ids=["make", "make help"])
def test_make_prints_every_target(words: tuple[str, ...]) -> None:
    shown = make(*words)
    assert [name for name, text in EXPLAINED if f"make {name} " not in shown or text not in shown] == []


def test_every_target_that_people_call_is_explained() -> None:
    phony = re.search(r"(?m)^\.PHONY: (.*)$", TEXT)
    assert phony is not None
    assert sorted(name for name, _ in EXPLAINED) == sorted(phony[1].split())
    wanted = {"bench", "demo", "docs", "help", "lint", "lock", "proto", "test", "types", "up"}
    assert wanted - {name for name, _ in EXPLAINED} == set()


@pytest.mark.parametrize("construct", NEWER_THAN_3_81)
def test_makefile_needs_no_newer_make(construct: str) -> None:
    assert re.findall(NEWER_THAN_3_81[construct], TEXT) == []


def test_the_check_of_every_push_is_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8").splitlines()
