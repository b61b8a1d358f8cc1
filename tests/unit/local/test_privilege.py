"""As whom PostgreSQL runs when the system does not say in time whether it may."""

from __future__ import annotations

import os

import pytest

from pixloom.errors import MachineError
from pixloom.local import privilege


def test_a_machine_too_busy_to_say_who_may_run_is_told_from_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(privilege, "_PROBE_S", 0.0)
    with pytest.raises(MachineError, match=r"not known after 0 s.*Try again"):
        privilege.choose_identity()
