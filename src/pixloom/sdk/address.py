"""Where the server is: `host:port`, `grpc://host:port`, or the HTTP address, which names the gRPC one.

The word `embedded` in the place of an address asks for a stack of one's own even if a server answers.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Final

from pixloom.errors import InvalidError, UnavailableError

__all__ = ["DEFAULT_SERVER", "EMBEDDED", "default_server", "grpc_address"]

DEFAULT_SERVER: Final = "127.0.0.1:7301"
EMBEDDED: Final = "embedded"


def default_server() -> str:
    """Return the server that the settings name."""
    from pixloom.settings import ClientSettings, load_settings

    return load_settings(ClientSettings).server


def grpc_address(server: str, *, timeout_s: float = 5.0) -> str:
    """Return the gRPC address of a server.

    Args:
        server: `host:port`, `grpc://host:port`, `unix:/path` or `http://host:port`; the last is asked for the first.
        timeout_s: Seconds to wait for an answer over HTTP.

    Raises:
        InvalidError: If the address has another form.
        UnavailableError: If the HTTP server does not answer or names no gRPC address.
    """
    if server.startswith(("http://", "https://")):
        return _ask(server.rstrip("/"), timeout_s)
    address = server.removeprefix("grpc://").rstrip("/")
    if address.startswith("unix:"):
        return address
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535 or "/" in address:
        raise InvalidError(
            f"{server!r} is not the address of a server. Use host:port, grpc://host:port or http://host:port, "
            f"as in {DEFAULT_SERVER}."
        )
    return address


def _ask(url: str, timeout_s: float) -> str:
    # The server is on this machine or in this network: a proxy of the environment would only be in the way.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/readyz", timeout=timeout_s) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()  # 503 while it starts; the body still names the address
    except OSError as error:
        raise UnavailableError(f"No server answers at {url}: {error}. Is `pixloom up` running?") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise InvalidError(f"{url!r} is not the address of a server: {error}. Use http://host:port.") from error
    except http.client.HTTPException as error:
        raise UnavailableError(
            f"What answers at {url} does not speak HTTP. If it is the gRPC address, write it as grpc://host:port."
        ) from error
    try:
        address = json.loads(body)["grpc"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"{url}/readyz names no gRPC address. Is it a Pixloom gateway?") from error
    return grpc_address(str(address))
