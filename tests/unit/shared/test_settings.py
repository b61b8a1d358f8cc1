from __future__ import annotations

import os
from pathlib import Path

import pytest

from pixloom.errors import InvalidError
from pixloom.settings import (
    ALL_SETTINGS,
    ClientSettings,
    ExecutorSettings,
    GatewaySettings,
    ProcessSettings,
    SchedulerSettings,
    StoreSettings,
    load_settings,
    loopback_only,
    split_address,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PIXLOOM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_need_no_environment() -> None:
    assert load_settings(SchedulerSettings).scheduler_listen == "127.0.0.1:7311"
    assert load_settings(GatewaySettings).gateway_http_listen == "127.0.0.1:7300"
    assert load_settings(GatewaySettings).gateway_grpc_listen == "127.0.0.1:7301"
    assert load_settings(ExecutorSettings).executor_pools == ("cpu", "net")
    assert load_settings(ClientSettings).server == "127.0.0.1:7301"
    assert load_settings(SchedulerSettings).workflows_dir == Path("config/workflows")


def test_artifacts_lie_below_the_working_directory_by_default(tmp_path: Path) -> None:
    expected = (tmp_path / ".pixloom" / "artifacts").resolve().as_uri()
    assert load_settings(StoreSettings).artifacts_url == expected


def test_environment_wins_over_file_and_arguments_win_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pixloom.toml").write_text('server = "file:1"\nlog_level = "debug"\n')
    assert load_settings(ClientSettings).server == "file:1"
    monkeypatch.setenv("PIXLOOM_SERVER", "environment:2")
    assert load_settings(ClientSettings).server == "environment:2"
    assert load_settings(ClientSettings, server="argument:3").server == "argument:3"
    assert load_settings(ClientSettings, server=None).server == "environment:2"
    assert load_settings(ClientSettings).log_level == "debug"


def test_lists_are_split_by_their_separator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXLOOM_SOURCE_ROOTS", os.pathsep.join(["/a b", "/c"]))
    monkeypatch.setenv("PIXLOOM_SCHEDULER_ADDRESSES", "127.0.0.1:1, 127.0.0.1:2,")
    settings = load_settings(ExecutorSettings)
    assert settings.source_roots == (Path("/a b"), Path("/c"))
    assert settings.scheduler_addresses == ("127.0.0.1:1", "127.0.0.1:2")


def test_lists_may_be_arrays_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "pixloom.toml").write_text('executor_imports = ["my.ops", "other.ops"]\nsource_roots = "/a"\n')
    settings = load_settings(ExecutorSettings)
    assert settings.executor_imports == ("my.ops", "other.ops")
    assert settings.source_roots == (Path("/a"),)


def test_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXLOOM_LOG_FORMAT", "")
    monkeypatch.setenv("PIXLOOM_SCHEDULER_ADDRESSES", "")
    settings = load_settings(ExecutorSettings)
    assert (settings.log_format, settings.scheduler_addresses) == (None, ("127.0.0.1:7311",))


def test_unknown_key_of_the_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "pixloom.toml").write_text('databse_url = "x"\n')
    with pytest.raises(InvalidError, match="databse_url: did you mean database_url"):
        load_settings(ClientSettings)


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pixloom.toml").write_text("server = \n")
    with pytest.raises(InvalidError, match=r"pixloom.toml is not valid TOML.*line 1"):
        load_settings(ClientSettings)


def test_wrong_value_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXLOOM_EXECUTOR_SLOTS", "many")
    with pytest.raises(InvalidError, match="PIXLOOM_EXECUTOR_SLOTS") as caught:
        load_settings(ExecutorSettings)
    assert [problem.pointer for problem in caught.value.problems] == ["/executor_slots"]


def test_addresses_with_secrets_stay_out_of_the_representation() -> None:
    settings = load_settings(
        SchedulerSettings, database_url="postgresql://u:hunter2@127.0.0.1/x", nats_url="nats://u:hunter2@127.0.0.1"
    )
    assert "hunter2" not in repr(settings)


def test_a_scheduler_advertises_where_it_listens_unless_it_is_told_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIXLOOM_SCHEDULER_LISTEN", "127.0.0.1:7399")
    assert load_settings(SchedulerSettings).reachable_at == "127.0.0.1:7399"
    monkeypatch.setenv("PIXLOOM_SCHEDULER_ADVERTISE", "scheduler-1.internal:7311")
    assert load_settings(SchedulerSettings).reachable_at == "scheduler-1.internal:7311"


@pytest.mark.parametrize("address", ["0.0.0.0:7311", "[::]:7311", "scheduler-1:0", "scheduler-1", "unix"])
def test_an_address_that_nobody_can_connect_to_is_not_advertised(address: str) -> None:
    with pytest.raises(InvalidError, match="PIXLOOM_SCHEDULER_ADVERTISE"):
        load_settings(SchedulerSettings, scheduler_advertise=address)


@pytest.mark.parametrize("cls", ALL_SETTINGS)
def test_every_field_has_a_description(cls: type[ProcessSettings]) -> None:
    assert [name for name, field in cls.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:7300", ("127.0.0.1", 7300)),
        ("127.1.2.3:0", ("127.1.2.3", 0)),
        ("localhost:80", ("127.0.0.1", 80)),
        ("[::1]:7300", ("::1", 7300)),
    ],
)
def test_loopback_addresses_are_accepted(listen: str, expected: tuple[str, int]) -> None:
    assert loopback_only(listen) == expected


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "192.168.1.2:1", "[::]:1", "example.org:1", "[::ffff:10.0.0.1]:1"])
def test_other_addresses_are_refused(listen: str) -> None:
    with pytest.raises(InvalidError, match="loopback only"):
        loopback_only(listen)


@pytest.mark.parametrize(
    "address", ["", "7300", ":7300", "127.0.0.1", "127.0.0.1:x", "a:65536", "::1:7300", "a:-1", "a:²"]
)
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(InvalidError, match="no address"):
        split_address(address)
