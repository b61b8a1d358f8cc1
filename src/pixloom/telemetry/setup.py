"""Set-up of tracing in a process, by the standard `OTEL_*` variables.

Spans leave the process only if an OTLP endpoint is set. Without one they still have valid ids, which travel in
headers, logs and jobs, but nothing about them is recorded, because a recorded span costs 26 µs and a dropped one 8.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pixloom.errors import InvalidError
from pixloom.telemetry.spans import PinnedIdGenerator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["configure_tracing", "exports_traces", "shutdown_tracing"]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def exports_traces(environ: Mapping[str, str]) -> bool:
    """Return whether the variables ask for spans to be exported."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return False
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)


def configure_tracing(service_name: str, *, instance_id: str | None = None, install: bool = True) -> TracerProvider:
    """Set up tracing; call it once at the start of a process, after any fork.

    Args:
        service_name: Name of the process, such as `pixloom-scheduler`; OTEL_SERVICE_NAME wins.
        instance_id: Which of several such processes, such as the executor's id.
        install: Make it the provider of the whole process.

    Returns:
        The provider; pass it to `shutdown_tracing` at the end.

    Raises:
        InvalidError: If another protocol than OTLP/gRPC is asked for.
    """
    attributes = {"service.namespace": "pixloom"}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = service_name
    if instance_id is not None:
        attributes["service.instance.id"] = instance_id
    resource = Resource.create(attributes)
    if exports_traces(os.environ):
        # The sampler is left to OTEL_TRACES_SAMPLER; the SDK's default follows the parent.
        provider = TracerProvider(resource=resource, id_generator=PinnedIdGenerator(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_otlp_exporter()))
    else:
        provider = TracerProvider(
            resource=resource, id_generator=PinnedIdGenerator(), sampler=ALWAYS_OFF, shutdown_on_exit=False
        )
    if install:
        trace.set_tracer_provider(provider)
    return provider


def _otlp_exporter() -> SpanExporter:
    for name in _PROTOCOLS:
        protocol = os.environ.get(name, "grpc").strip()
        if protocol not in {"", "grpc"}:
            raise InvalidError(
                f"{name}={protocol} is not supported: traces are exported as OTLP over gRPC; set it to grpc."
            )
    # Imported here: it brings gRPC and the OTLP messages along, which a process without an endpoint never needs.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def shutdown_tracing(provider: TracerProvider, *, timeout_s: float = 3.0) -> bool:
    """Export what is left and stop; calling it again does nothing.

    Args:
        provider: What `configure_tracing` returned.
        timeout_s: Longest wait for the collector; what it has not taken by then is lost.

    Returns:
        Whether the end was reached in time.
    """
    # The SDK waits for as long as its exporter tries again, which is up to 30 s; a drain has no such time.
    end = threading.Thread(target=provider.shutdown, name="tracing-end", daemon=True)
    end.start()
    end.join(timeout_s)
    return not end.is_alive()
