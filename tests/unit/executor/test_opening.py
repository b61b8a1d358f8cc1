"""From a record to its bytes: what is read, and what is left behind when nothing can be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pixloom.artifacts import open_store
from pixloom.sdk.op import Item, Reject
from pixloom_executor.opening import Opener

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(store=open_store((tmp_path / "store").as_uri()), source_roots=(tmp_path,))


def refused(opener: Opener, path: Path) -> str:
    with pytest.raises(Reject) as refusal:
        opener.open_bytes(Item(key="x", uri=path.as_uri()))
    return f"{refusal.value.reason} {refusal.value.detail}"


def test_bytes_of_a_file_below_the_roots(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert opener.open_bytes(Item(key="a.jpg", uri=(tmp_path / "a.jpg").as_uri())) == b"abc"


def test_what_is_no_file_is_refused_and_leaves_nothing_open(opener: Opener, tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    before = os.listdir("/dev/fd")  # noqa: PTH208
    assert "Is a directory" in refused(opener, tmp_path / "folder.jpg")
    assert refused(opener, tmp_path / "pipe.jpg").startswith("EMPTY_FILE")
    assert refused(opener, tmp_path / "absent.jpg").startswith("READ_ERROR")
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_links_that_leave_the_roots_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"abc")
    (tmp_path / "inside" / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    opener = Opener(store=open_store((tmp_path / "store").as_uri()), source_roots=(tmp_path / "inside",))
    assert "outside the source roots" in refused(opener, tmp_path / "inside" / "a.jpg")
