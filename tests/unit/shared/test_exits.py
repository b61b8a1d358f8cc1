from __future__ import annotations

import pytest

from pixloom.errors import REASONS, error_from_reason
from pixloom.exits import exit_code_of

_EXPECTED = {
    "UNAVAILABLE": 3,
    "OVERLOADED": 3,
    "DEADLINE_EXCEEDED": 3,
    "STATE_CONFLICT": 1,
    "INTERNAL": 1,
    "ENVIRONMENT": 1,
}


@pytest.mark.parametrize("reason", REASONS)
def test_exit_code_says_whose_fault_it_is(reason: str) -> None:
    assert exit_code_of(error_from_reason(reason, "")) == _EXPECTED.get(reason, 2)
