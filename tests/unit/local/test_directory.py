"""Data directories: private files, one owner at a time, room on the disk."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from pixloom.errors import MachineError
from pixloom.local.directory import (
    DirectoryLock,
    last_lines,
    make_private_directory,
    read_or_make_secret,
    require_free_port,
    require_room,
    write_private,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    first, second = (DirectoryLock(tmp_path / "lock", what="Something") for _ in range(2))
    first.acquire()
    with pytest.raises(MachineError, match=rf"Something in .* is already running \(pid {os.getpid()}\)\. Stop it"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_new_directory_is_private_and_an_old_one_keeps_its_permissions(tmp_path: Path) -> None:
    make_private_directory(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    make_private_directory(tmp_path / "old")
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o755


def test_a_file_in_the_way_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(MachineError, match=r"The data directory .*data cannot be made: File exists"):
        make_private_directory(tmp_path / "data")


def test_a_private_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(MachineError, match="cannot be written"):
        write_private(tmp_path / "file", "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    secret = read_or_make_secret(tmp_path / "one")
    assert len(secret) == 64
    assert read_or_make_secret(tmp_path / "one") == secret
    assert read_or_make_secret(tmp_path / "two") != secret


def test_too_little_room_is_refused_with_both_figures(tmp_path: Path) -> None:
    require_room(tmp_path, min_free_bytes=1)
    with pytest.raises(MachineError, match=rf"Only \d+ MB are free on the disk of {tmp_path}; \d+ MB are needed"):
        require_room(tmp_path, min_free_bytes=2**62)


def test_a_port_in_use_is_refused_with_the_option_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"Port {port} for REST is in use. Choose another with --http-port"):
            require_free_port(port, what="REST", option="--http-port")
    require_free_port(port, what="REST", option="--http-port")
    require_free_port(0, what="REST", option="--http-port")


def test_the_end_of_a_log_is_shown_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo\n\xffthree\n")
    assert last_lines(tmp_path / "log", 2) == "two\n\ufffdthree"
    assert last_lines(tmp_path / "missing") == ""
