from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from pixloom.errors import DeadlineError
from pixloom_gateway.middleware.limits import LimitsMiddleware, RequestLimits

LIMIT_S = 0.1


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after twice the limit."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2 * LIMIT_S):
            await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def answer(**headers: str) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/api/v1/jobs",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    limited = LimitsMiddleware(slow, default=RequestLimits(max_bytes=1000, timeout_s=LIMIT_S))
    await limited(scope, None, send)  # type: ignore[arg-type]
    return sent


async def test_an_answer_that_does_not_begin_in_time_is_given_up() -> None:
    with pytest.raises(DeadlineError, match="longer than"):
        await answer()


async def test_who_prefers_to_wait_is_given_the_time_for_it() -> None:
    assert [message["status"] for message in await answer(prefer="wait=5")] == [200]
    with pytest.raises(DeadlineError):
        await answer(prefer="respond-async")
