"""The locks pin every package by version and hash, agree with one another, and name no address."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

import pytest

from tests.support.repository import ROOT

REQUIREMENTS = ROOT / "requirements"
SERVICES = ("executor", "gateway", "scheduler")
LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.lock"))
ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?==(?P<version>[^\s;]+)(\s*;\s*(?P<marker>[^\\]*?))?(?=\s+--hash|$)"
)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
# pyvips is pure Python and published as source only.
OPTIONS = {"--no-binary pyvips"}


@dataclass(frozen=True, slots=True)
class Pin:
    name: str
    version: str
    marker: str


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(name: str) -> dict[Pin, str]:
    """Return the pins of a lock with the text of each, hashes included; anything else in it is a failure."""
    text = (REQUIREMENTS / name).read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n?", "", text))
    pins = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        if line in OPTIONS:
            continue
        entry = ENTRY.match(line)
        assert entry is not None, f"{name}: {line[:80]}"
        pins[Pin(canonical(entry["name"]), entry["version"], (entry["marker"] or "").strip())] = line
    return pins


def versions(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in read_lock(name):
        found.setdefault(pin.name, set()).add(pin.version)
    return found


def test_there_is_a_lock_for_every_use() -> None:
    expected = sorted(f"{use}.lock" for use in ("build", "dev", "photos", "run", *SERVICES))
    assert expected == LOCKS


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_has_hashes(lock: str) -> None:
    pins = read_lock(lock)
    assert len(pins) > 0
    assert [pin for pin, text in pins.items() if not HASH.search(text)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_address(lock: str) -> None:
    text = (REQUIREMENTS / lock).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "://" in line or "index-url" in line or "find-links" in line] == []


def test_development_has_everything_that_runs_at_the_same_versions() -> None:
    run, dev = versions("run.lock"), versions("dev.lock")
    assert {name: pins for name, pins in run.items() if dev.get(name) != pins} == {}


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_nothing_but_what_runs_elsewhere_too(service: str) -> None:
    known = versions("build.lock") | versions("run.lock")
    assert {
        name: pins for name, pins in versions(f"{service}.lock").items() if not pins <= known.get(name, set())
    } == {}


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    run = [*project["project"]["dependencies"], *(entry for extra in extras.values() for entry in extra)]
    names = re.compile(r"[A-Za-z0-9._-]+")

    def missing(entries: list[str], lock: str) -> set[str]:
        found = {canonical(match[0]) for match in map(names.match, entries) if match}
        return found - set(versions(lock)) - {"pixloom"}

    assert missing(run, "run.lock") == set()
    assert missing(project["dependency-groups"]["dev"], "dev.lock") == set()
