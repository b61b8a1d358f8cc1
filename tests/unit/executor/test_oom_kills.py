"""Who killed a child: the kernel for want of memory, or somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pixloom_executor.children.oom_kills import cause_of_kill, count_oom_kills

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pgfault 7\noom_kill 0\nnuma_hit 1\n", 0),
        ("oom_kill 12\n", 12),
        ("pgfault 7\n", None),
        ("oom_kill_other 3\n", None),
        ("oom_kill many\n", None),
        ("", None),
    ],
)
def test_the_kernel_is_asked_how_many_it_has_ended(tmp_path: Path, text: str, expected: int | None) -> None:
    file = tmp_path / "vmstat"
    file.write_text(text)
    assert count_oom_kills(file) == expected


def test_a_system_without_that_file_does_not_say(tmp_path: Path) -> None:
    assert count_oom_kills(tmp_path / "vmstat") is None


@pytest.mark.parametrize(("kills", "expected"), [(0, "CRASHED"), (1, "OUT_OF_MEMORY"), (None, "OUT_OF_MEMORY")])
def test_memory_is_the_cause_only_where_it_can_be(kills: int | None, expected: str) -> None:
    assert cause_of_kill(kills)[0] == expected
