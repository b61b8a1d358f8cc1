from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixloom.errors import RangeError
from pixloom_gateway.rest.ranges import ByteRange, parse_range


def test_no_header_means_everything() -> None:
    assert parse_range(None, size_bytes=10) is None


def test_first_last_and_suffix_forms() -> None:
    assert parse_range("bytes=2-4", size_bytes=10) == ByteRange(2, 3)
    assert parse_range("bytes=2-", size_bytes=10) == ByteRange(2, 8)
    assert parse_range("bytes=-3", size_bytes=10) == ByteRange(7, 3)


def test_range_outside_names_the_size() -> None:
    with pytest.raises(RangeError) as caught:
        parse_range("bytes=10-", size_bytes=10)
    assert caught.value.metadata == {"size_bytes": "10"}


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d{0,5}-\d{0,5}", fullmatch=True), st.integers(0, 10**5))
def test_a_range_lies_inside_or_is_refused_or_ignored(header: Any, size: Any) -> None:
    try:
        found = parse_range(header, size_bytes=size)
    except RangeError:
        return
    if found is not None:
        assert 0 <= found.start < found.start + found.length <= size
