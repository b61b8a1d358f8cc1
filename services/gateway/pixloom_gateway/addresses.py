"""Where a gateway serves, for whoever tells others."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Addresses"]


@dataclass(slots=True)
class Addresses:
    """Where a gateway serves, `host:port`. The gateway puts the ports in once it listens.

    FastAPI remembers functions of routes for as long as the process lives, and with them all that they reach. They
    reach this and not the gateway, or its servers would outlive everything that they need for their end.

    Attributes:
        http: Address of REST; as it was asked for until the gateway listens.
        grpc: The same for gRPC.
    """

    http: str
    grpc: str
