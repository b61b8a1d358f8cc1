"""Log lines: structlog, one line per event, key=value or JSON, on standard error.

Lines of libraries that use `logging` pass through the same processors. Trace and span id of the current span are on
every line written inside one, so that a log line leads to its trace and back.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import structlog
from opentelemetry import trace

from pixloom.errors import PixloomError
from pixloom.exits import ExitCode, exit_code_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from pixloom.settings import ProcessSettings

__all__ = ["add_trace_ids", "configure", "report_failure"]

# Libraries whose informative lines say nothing an operator can use.
_QUIET = ("asyncio", "alembic.runtime.plugins", "httpcore2", "httpx2", "nats", "opentelemetry", "uvicorn.access")


def configure(service: str, settings: ProcessSettings, *, stream: TextIO | None = None) -> None:
    """Set up the logs of this process; calling it again replaces the set-up.

    Args:
        service: Name of the process, on every line, such as `scheduler`.
        settings: Format and least level.
        stream: Where lines go; standard error if not given.
    """
    out = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ServiceName(service),
        add_trace_ids,
    ]
    final = _renderers(settings.log_format or ("console" if out.isatty() else "json"), colors=out.isatty())
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def report_failure(service: str, error: Exception) -> ExitCode:
    """Say why a service ends: a log line for those who collect them, and a sentence for who started it by hand.

    Args:
        service: Name of the process.
        error: What ends it.

    Returns:
        The exit code: 2 for a setting that is not valid, 3 if what it needs does not answer, else 1.
    """
    message = error.message if isinstance(error, PixloomError) else str(error)
    code = exit_code_of(error) if isinstance(error, PixloomError) else ExitCode.FAILED
    if code is not ExitCode.INVALID:
        reason = error.reason if isinstance(error, PixloomError) else type(error).__name__
        structlog.get_logger(service).error(f"{service}_failed", reason=reason, error=message)
    # A bad setting may be the one that says how log lines look.
    sys.stderr.write(f"Error: the {service} cannot run. {message[:1].upper()}{message[1:]}\n")
    return code


def _renderers(log_format: str, *, colors: bool) -> list[structlog.typing.Processor]:
    if log_format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dump)]
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0, pad_level=False
        )
    ]


def _dump(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _ServiceName:
    """Processor that puts the name of the process on every line."""

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", self._service)
        return event


def add_trace_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put trace and span id of the current span on a line (structlog processor)."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(context.trace_id))
        event.setdefault("span_id", trace.format_span_id(context.span_id))
    return event
