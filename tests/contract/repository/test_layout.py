"""What lies in the repository, and what must not."""

from __future__ import annotations

import re

import pytest

from tests.support.repository import ROOT, files, modules, texts

TOP = [
    ".ci/run",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "buf.yaml",
    "deploy/compose.yaml",
    "deploy/executor.Containerfile",
    "deploy/gateway.Containerfile",
    "deploy/scheduler.Containerfile",
    "docs/adr",
    "docs/reference",
    "protos/pixloom/v1",
    "pyproject.toml",
    "requirements",
    "services/executor/pixloom_executor",
    "services/gateway/pixloom_gateway",
    "services/scheduler/migrations",
    "services/scheduler/pixloom_scheduler",
    "src/pixloom/py.typed",
    "tests",
]

# These name the addresses that packages were found at.
FORBIDDEN_NAMES = {"uv.lock", "pylock.toml", "buf.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}
# Names that say nothing of what is inside.
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}


# Put together here, so that this file does not contain what it looks for.
def word(*parts: str) -> str:
    return re.escape("".join(parts))


REGISTRIES = "|".join(
    [
        word("pypi", ".org"),
        word("python", "hosted.org"),
        word("registry.", "npmjs"),
        word("registry.", "yarnpkg"),
        word("buf", ".build"),
        word("crates", ".io"),
        word("proxy.go", "lang.o", "rg"),
        word("ghcr", ".io"),
        word("docker", ".io"),
        word("quay", ".io"),
        word("gcr", ".io"),
    ]
)
MACHINES = "|".join(
    [
        word("/", "home/") + r"\w",
        word("/", "Users/") + r"\w",
        rf"(?<![\w.]){word('/', 'root/')}",
        rf"(?<![\w.]){re.escape(str(ROOT))}(?![\w-])",
    ]
)
UNFINISHED = "|".join(
    [rf"\b{word('TO', 'DO')}\b", rf"\b{word('FIX', 'ME')}\b", word("Not", "ImplementedError"), word("mark.", "skip")]
)


def places(pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        if found.search(text)
        for number, line in enumerate(text.splitlines(), start=1)
        if found.search(line)
    ]


@pytest.mark.parametrize("entry", TOP)
def test_entry_is_there(entry: str) -> None:
    path = ROOT / entry
    assert path.exists()
    assert path.is_dir() or path.suffix == ".typed" or path.stat().st_size > 0


def test_no_lock_file_names_addresses() -> None:
    assert [path for path in files() if path.name in FORBIDDEN_NAMES] == []


def test_nothing_names_a_package_registry() -> None:
    assert places(REGISTRIES) == []


def test_nothing_names_a_folder_of_somebodys_machine() -> None:
    assert places(MACHINES) == []


def test_nothing_is_left_to_be_done() -> None:
    assert [place for place in places(UNFINISHED) if not place.startswith("src/pixloom/v1/")] == []


def test_modules_are_named_for_what_they_hold() -> None:
    names = {
        part for path in modules("src", "services", "tools") for part in path.relative_to(ROOT).with_suffix("").parts
    }
    assert names & EMPTY_NAMES == set()


def test_test_folders_are_no_packages_and_their_files_are_collected() -> None:
    assert [path for path in modules("tests") if path.name == "__init__.py"] == []
    cases = [
        path for path in modules("tests") if re.search(r"^(async )?def test_", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert [path for path in cases if not path.name.startswith("test_")] == []
