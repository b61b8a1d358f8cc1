from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom.errors import MachineError
from pixloom.sdk.files import saved_to

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_appears_whole(tmp_path: Path) -> None:
    with saved_to(tmp_path / "deep" / "a.txt") as file:
        file.write(b"whole")
        assert not (tmp_path / "deep" / "a.txt").exists()

    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(TypeError), saved_to(tmp_path / "a.txt") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]

    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_is_an_error_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()

    with pytest.raises(MachineError, match="cannot be written"), saved_to(tmp_path / "taken" / "a.txt"):
        pass
