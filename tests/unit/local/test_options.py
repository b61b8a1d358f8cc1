"""What a local stack is asked for, and what its parts are told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pixloom.errors import InvalidError
from pixloom.local.options import LocalStackOptions, PartSpec, Wiring, default_parts
from pixloom.settings import ExecutorSettings, GatewaySettings, SchedulerSettings, load_settings

WIRING = Wiring(
    "postgresql://u:secret@/db?host=/s",
    "nats://u:secret@127.0.0.1:1",
    scheduler_ports=(1001,),
    http_port=1002,
    grpc_port=1003,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PIXLOOM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def parts_of(options: LocalStackOptions) -> dict[str, PartSpec]:
    return {part.name: part for part in default_parts(options, WIRING)}


def test_command_lines_name_the_parts() -> None:
    parts = parts_of(LocalStackOptions(executors=2))
    assert list(parts) == ["scheduler", "gateway", "executor-1", "executor-2"]
    for name, part in parts.items():
        assert part.argv[1:] == ("-m", f"pixloom_{name.partition('-')[0]}")


def test_a_part_is_told_only_the_secrets_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXLOOM_DATABASE_URL", "postgresql://u:secret@elsewhere/db")
    monkeypatch.setenv("PIXLOOM_NATS_URL", "nats://u:secret@elsewhere")
    parts = parts_of(LocalStackOptions(executors=1))
    assert {"PIXLOOM_DATABASE_URL", "PIXLOOM_NATS_URL"} & parts["gateway"].env.keys() == set()
    assert "PIXLOOM_DATABASE_URL" not in parts["executor-1"].env
    assert parts["executor-1"].env["PIXLOOM_NATS_URL"] == WIRING.nats_url
    assert parts["scheduler"].env["PIXLOOM_DATABASE_URL"] == WIRING.database_url
    assert "secret" not in repr(parts)
    assert "secret" not in repr(WIRING)


def test_the_settings_of_every_part_accept_what_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = LocalStackOptions(
        data_dir=tmp_path / "a b",
        executors=1,
        source_roots=(tmp_path, tmp_path / "photos", tmp_path),
        export_roots=(tmp_path / "out",),
        imports=("my.ops", "your.ops"),
        workflows_dir=Path("flows"),
    )
    parts = parts_of(options)
    for name, value in parts["scheduler"].env.items():
        monkeypatch.setenv(name, value)
    scheduler = load_settings(SchedulerSettings)
    assert scheduler.scheduler_listen == "127.0.0.1:1001"
    assert scheduler.workflows_dir == tmp_path / "flows"
    assert scheduler.source_roots == (tmp_path, tmp_path / "photos")
    assert scheduler.artifacts_url == f"file://{tmp_path}/a%20b/artifacts"
    for name, value in parts["executor-1"].env.items():
        monkeypatch.setenv(name, value)
    executor = load_settings(ExecutorSettings)
    assert executor.executor_imports == ("my.ops", "your.ops")
    assert executor.executor_slots >= 1
    for name, value in parts["gateway"].env.items():
        monkeypatch.setenv(name, value)
    gateway = load_settings(GatewaySettings)
    assert gateway.scheduler_addresses == ("127.0.0.1:1001",)
    assert (gateway.gateway_http_listen, gateway.gateway_grpc_listen) == ("127.0.0.1:1002", "127.0.0.1:1003")


def test_environment_and_file_say_what_is_external(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert LocalStackOptions.from_settings() == LocalStackOptions()
    monkeypatch.setenv("PIXLOOM_NATS_URL", "nats://elsewhere:4222")
    monkeypatch.setenv("PIXLOOM_SOURCE_ROOTS", str(tmp_path / "one"))
    (tmp_path / "pixloom.toml").write_text('database_url = "postgresql://elsewhere/db"\n')
    options = LocalStackOptions.from_settings(source_roots=(tmp_path / "two",), http_port=0, executors=None)
    assert options.nats_url == "nats://elsewhere:4222"
    assert options.database_url == "postgresql://elsewhere/db"
    assert options.source_roots == (tmp_path / "one", tmp_path / "two")
    assert options.http_port == 0
    assert options.executor_count >= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"http_port": 65536}, "--http-port is 65536"),
        ({"grpc_port": -1}, "--grpc-port is -1"),
        ({"http_port": 7301}, "are both 7301"),
        ({"executors": 257}, "--executors is 257"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        LocalStackOptions.from_settings(**given)
