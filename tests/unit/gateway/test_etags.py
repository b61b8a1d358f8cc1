from __future__ import annotations

import pytest

from pixloom.errors import InvalidError
from pixloom_gateway.rest.etags import if_match, is_listed


def test_if_none_match_lists_tags() -> None:
    assert is_listed('"a", W/"b"', "b")
    assert is_listed("*", "b")
    assert not is_listed('"a"', "b")
    assert not is_listed("b", "b")
    assert not is_listed(None, "b")


def test_if_match_is_one_tag() -> None:
    assert if_match('"abc"') == "abc"
    assert if_match("*") == ""
    assert if_match(None) == ""
    for bad in ("abc", '"a", "b"', 'W/"a"'):
        with pytest.raises(InvalidError, match="If-Match"):
            if_match(bad)
