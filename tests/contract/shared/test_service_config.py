from __future__ import annotations

import json
import re
from pathlib import Path

from pixloom.rpc.channel import service_config

PROTOS = Path(__file__).parents[3] / "protos" / "pixloom" / "v1"
RPC = re.compile(r"\s*rpc (\w+)\(")


def _documented_as_idempotent() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for path in PROTOS.glob("*.proto"):
        service, comment = "", ""
        for line in path.read_text().splitlines():
            text = line.strip()
            if text.startswith("//"):
                comment += text
                continue
            if match := re.match(r"service (\w+)", text):
                service = match[1]
            elif (match := RPC.match(line)) and comment.endswith("Idempotent."):
                found.add((f"pixloom.v1.{service}", match[1]))
            comment = ""
    return found


def test_calls_are_repeated_exactly_if_the_contract_calls_them_idempotent() -> None:
    (config,) = json.loads(service_config())["methodConfig"]
    assert {(name["service"], name["method"]) for name in config["name"]} == _documented_as_idempotent()


def test_only_unavailable_is_tried_again() -> None:
    (config,) = json.loads(service_config())["methodConfig"]
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
