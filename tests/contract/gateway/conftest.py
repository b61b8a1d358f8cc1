"""The same parts as the integration tests."""

from __future__ import annotations

from tests.integration.gateway.conftest import (
    gateway,
    http,
    peer,
    peer_address,
    sockets,
    spans,
    start_gateway,
    store,
)

__all__ = ["gateway", "http", "peer", "peer_address", "sockets", "spans", "start_gateway", "store"]
