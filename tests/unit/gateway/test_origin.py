from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pixloom_gateway.middleware.origin import refusal_of


def test_own_names_pass() -> None:
    for host in ("localhost", "localhost:7300", "127.0.0.1:7300", "[::1]", "[::1]:7300"):
        assert refusal_of([host], [], port=7300) is None
        assert refusal_of([host], [f"http://{host}"], port=7300) is None


def test_other_ports_and_sites_are_refused() -> None:
    assert refusal_of(["localhost:7301"], [], port=7300) is not None
    assert refusal_of(["localhost:7300"], ["http://localhost:7301"], port=7300) is not None
    assert refusal_of(["localhost:7300"], ["http://127.0.0.1:7300"], port=7300) is not None
    assert refusal_of(["localhost"], ["http://localhost", "http://localhost"], port=7300) is not None
    assert refusal_of([], [], port=7300) is not None
    assert refusal_of(["localhost", "localhost"], [], port=7300) is not None


@given(st.text(max_size=40))
def test_only_loopback_names_pass(host: Any) -> None:
    if refusal_of([host], [], port=7300) is None:
        assert host.strip().lower().removesuffix(":7300") in {"localhost", "127.0.0.1", "[::1]"}
