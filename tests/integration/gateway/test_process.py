from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import httpx2
import orjson


async def start(tmp_path: Any, **environ: Any) -> Any:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pixloom_gateway",
        cwd=tmp_path,
        env={
            **os.environ,
            "PIXLOOM_GATEWAY_HTTP_LISTEN": "127.0.0.1:0",
            "PIXLOOM_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "PIXLOOM_LOG_FORMAT": "json",
            **environ,
        },
        stderr=asyncio.subprocess.PIPE,
    )


async def line_with(process: Any, event: Any) -> Any:
    while True:
        line = orjson.loads(await asyncio.wait_for(process.stderr.readline(), 60))
        if line["event"] == event:
            return line


async def test_process_serves_until_sigterm_and_ends_with_0(tmp_path: Any, peer: Any, peer_address: Any) -> None:
    process = await start(tmp_path, PIXLOOM_SCHEDULER_ADDRESSES=peer_address)
    try:
        listening = await line_with(process, "gateway_listening")
        async with httpx2.AsyncClient(base_url=f"http://{listening['http']}", trust_env=False) as http:
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["grpc"]) == (200, listening["grpc"])
            job_id = (await http.post("/api/v1/jobs", json={"spec": {"name": "w"}})).json()["id"]
            async with http.stream("GET", f"/api/v1/jobs/{job_id}/events") as events:
                await anext(events.aiter_bytes())
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), 15) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_process_refuses_the_network_and_ends_with_2(tmp_path: Any) -> None:
    process = await start(tmp_path, PIXLOOM_GATEWAY_HTTP_LISTEN="0.0.0.0:7300")
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"PIXLOOM_GATEWAY_HTTP_LISTEN" in errors
    assert b"loopback" in errors


async def test_process_names_a_setting_that_is_not_valid(tmp_path: Any) -> None:
    process = await start(tmp_path, PIXLOOM_LOG_FORMAT="purple")
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"PIXLOOM_LOG_FORMAT" in errors
    assert b"Traceback" not in errors
