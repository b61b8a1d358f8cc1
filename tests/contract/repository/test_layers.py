"""Who may import whom: the contracts in pyproject.toml, and what a process really loads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.repository import ROOT

LINTER = Path(sysconfig.get_path("scripts")) / "lint-imports"
PARENTS = ("src", "services/scheduler", "services/executor", "services/gateway")
DECODERS = {"faiss", "numpy", "pyvips", "simplejpeg"}
DATABASE = {"alembic", "asyncpg", "sqlalchemy"}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(root / parent) for parent in PARENTS),
        "COLUMNS": "200",
    }
    words = [str(LINTER), "--no-cache", "--config", str(root / "pyproject.toml")]
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_layers_are_kept() -> None:
    linted = lint(ROOT)
    assert linted.returncode == 0, linted.stdout


def test_imports_across_layers_are_found(tmp_path: Path) -> None:
    planted = {
        "services/scheduler/pixloom_scheduler/core/settle.py": ("import time", "are pure"),
        "services/gateway/pixloom_gateway/items.py": ("import pixloom_executor", "never import one another"),
        "src/pixloom/queue.py": ("import sqlalchemy", "speaks to the database"),
        "src/pixloom/errors.py": ("import pixloom.resources", "shared package's layers"),
        "services/executor/pixloom_executor/session.py": ("import nats", "speak to NATS"),
    }
    for folder in ("src", "services"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, (statement, _) in planted.items():
        module = tmp_path / path
        module.write_text(f"{module.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")

    linted = lint(tmp_path)
    assert linted.returncode != 0
    broken = [line for line in linted.stdout.splitlines() if "BROKEN" in line]
    assert [name for _, name in planted.values() if not any(name in line for line in broken)] == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pixloom_executor.service", DECODERS | DATABASE | {"fastapi", "pixloom_executor.ops"}),
        ("pixloom_scheduler.service", DECODERS | {"fastapi", "pyarrow"}),
        ("pixloom_gateway.gateway", DECODERS | DATABASE | {"nats"}),
        ("pixloom.cli.app", DECODERS | DATABASE | {"asyncio", "fastapi", "grpc", "nats", "pydantic", "rich"}),
    ],
)
def test_process_loads_only_what_it_needs(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert unwanted & set(loaded) == set()
