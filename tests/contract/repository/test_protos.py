"""The protos keep to the style, break nobody, and are what the committed code was generated from."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.repository import GENERATED, ROOT

SCRIPTS = Path(sysconfig.get_path("scripts"))
BUF = SCRIPTS / "buf"
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))


def run(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


def copy_protos(target: Path) -> None:
    for path in [*PROTOS, ROOT / "protos" / "baseline.binpb", ROOT / "buf.yaml"]:
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def replace_in(target: Path, old: str, new: str) -> None:
    text = target.read_text(encoding="utf-8")
    assert old in text
    target.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_generated_code_is_fresh(tmp_path: Path) -> None:
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "mypy", "grpc_python", "mypy_grpc")]
    made = run(sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *outputs, *PROTOS)
    assert made.returncode == 0, made.stderr

    fresh = {path.name: path.read_text("utf-8") for path in (tmp_path / "pixloom" / "v1").iterdir()}
    kept = {path.name: path.read_text("utf-8") for path in GENERATED.glob("*_pb2*.py*") if path.is_file()}
    assert sorted(fresh) == sorted(kept)
    assert [name for name, text in fresh.items() if kept[name] != text] == [], "run `make proto`"


def test_every_element_has_a_comment_and_the_standard_style() -> None:
    linted = run(BUF, "lint")
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_an_element_without_a_comment_is_found(tmp_path: Path) -> None:
    copy_protos(tmp_path)
    bare = "// Version, counted from 1.\n  uint32"
    replace_in(tmp_path / "protos" / "pixloom" / "v1" / "workflow.proto", bare, "uint32")

    linted = run(BUF, "lint", cwd=tmp_path)
    assert linted.returncode != 0
    assert '"version"' in linted.stdout


def test_nothing_breaks_what_was_released() -> None:
    compared = run(BUF, "breaking", "--against", "protos/baseline.binpb")
    assert (compared.returncode, compared.stdout, compared.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [("string sha256 = 3;", "bytes sha256 = 3;"), ("string sha256 = 3;", "string sha256 = 33;")],
    ids=["type", "number"],
)
def test_a_change_that_breaks_is_found(tmp_path: Path, old: str, new: str) -> None:
    copy_protos(tmp_path)
    replace_in(tmp_path / "protos" / "pixloom" / "v1" / "workflow.proto", old, new)

    compared = run(BUF, "breaking", "--against", "protos/baseline.binpb", cwd=tmp_path)
    assert compared.returncode != 0
    assert "workflow.proto" in compared.stdout
