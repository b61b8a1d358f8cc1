"""Asking the gateway whether the stack can run jobs; by hand, since an HTTP client costs more to import than to do without."""

from __future__ import annotations

import asyncio
import contextlib
import os

import orjson

__all__ = ["ask_ready"]


async def ask_ready(port: int) -> tuple[int, str]:
    """Ask the gateway on 127.0.0.1 whether it is ready.

    Args:
        port: Its REST port.

    Returns:
        The HTTP status, 0 when nobody answered, and what is missing for people.
    """
    request = f"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request.encode("ascii"))
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return 0, "an answer of the gateway"
    except OSError as error:
        return 0, f"the gateway ({os.strerror(error.errno or 0)})"
    words = head.split(b" ", 2)
    state = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    try:
        missing = "; ".join(orjson.loads(body)["missing"])
    except (ValueError, KeyError, TypeError):
        missing = ""
    return state, missing or f"HTTP {state}"
