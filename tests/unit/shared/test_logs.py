from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from pixloom import logs
from pixloom.settings import ClientSettings, load_settings
from pixloom.telemetry.spans import PinnedIdGenerator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_carries_event_service_level_and_values() -> None:
    out = io.StringIO()
    logs.configure("scheduler", load_settings(ClientSettings, log_format="json"), stream=out)
    structlog.get_logger("x").info("job_ended", job="j1", tasks=3)
    (line,) = _lines(out)
    assert line.pop("timestamp")
    assert line == {"event": "job_ended", "service": "scheduler", "level": "info", "job": "j1", "tasks": 3}


def test_console_lines_are_key_value_without_colours_on_a_pipe() -> None:
    out = io.StringIO()
    logs.configure("gateway", load_settings(ClientSettings, log_format="console"), stream=out)
    structlog.get_logger("x").warning("slow", rpc="GetJob")
    assert "slow" in out.getvalue()
    assert "rpc=GetJob" in out.getvalue()
    assert "service=gateway" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    logs.configure("x", load_settings(ClientSettings, log_format="json", log_level="warning"), stream=out)
    structlog.get_logger("x").info("quiet")
    logging.getLogger("library").info("quiet")
    assert out.getvalue() == ""


def test_lines_of_libraries_look_the_same() -> None:
    out = io.StringIO()
    logs.configure("x", load_settings(ClientSettings, log_format="json"), stream=out)
    logging.getLogger("library").warning("it is %s", "late")
    (line,) = _lines(out)
    assert (line["event"], line["service"], line["level"]) == ("it is late", "x", "warning")


def test_line_inside_a_span_carries_its_ids() -> None:
    out = io.StringIO()
    logs.configure("x", load_settings(ClientSettings, log_format="json"), stream=out)
    tracer = TracerProvider(id_generator=PinnedIdGenerator()).get_tracer("t")
    with tracer.start_as_current_span("s") as span:
        structlog.get_logger("x").info("inside")
    structlog.get_logger("x").info("outside")
    inside, outside = _lines(out)
    assert inside["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert inside["span_id"] == f"{span.get_span_context().span_id:016x}"
    assert "trace_id" not in outside


def test_traceback_is_on_the_line_of_its_exception() -> None:
    out = io.StringIO()
    logs.configure("x", load_settings(ClientSettings, log_format="json"), stream=out)
    try:
        int("odd")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = _lines(out)
    assert "ValueError: invalid literal" in str(line["exception"])
