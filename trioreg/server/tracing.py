"""OpenTelemetry traces: a span for each request, and children for what an upload's time went into.

Only here is `opentelemetry` imported, and only with ``otel.enabled`` (`server.otel`). Spans leave the process
in a thread of the SDK's, through a queue that it bounds; when that is full spans are dropped and nobody
waits. Where they go, how many are kept and what the service is called are the SDK's variables (``OTEL_…``).

A child is a sum: it begins with the request and is as long as all waits of its kind together. Names follow
https://opentelemetry.io/docs/specs/semconv/http/http-spans/ where those have one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trioreg import __version__, logs
from trioreg.api import Exchange
from trioreg.metrics.table import OPERATIONS
from trioreg.pipeline.transfers import Transfer, Transfers

_span: ContextVar[Span | None] = ContextVar("span", default=None)

# https://www.w3.org/TR/trace-context/: traceparent, tracestate.
_W3C = TraceContextTextMapPropagator()

_CLOSE_SECONDS = 5.0


def exporting_provider() -> TracerProvider:
    """Sends spans over OTLP/HTTP, as the variables ``OTEL_EXPORTER_OTLP_…`` say."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({SERVICE_NAME: "trioreg", "service.version": __version__})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """`api.service.Tracing` over a provider of spans; `transfers` are told of by their children."""

    def __init__(self, provider: TracerProvider, transfers: Transfers):
        self._provider = provider
        self._tracer = provider.get_tracer("trioreg", __version__)
        transfers.over = self._children

    def begin(self, exchange: Exchange) -> None:
        parent = _W3C.extract(exchange.headers)
        span = self._tracer.start_span(
            exchange.method,
            parent,
            SpanKind.SERVER,
            {
                "http.request.method": exchange.method,
                "url.path": exchange.path,
                "client.address": exchange.peer,
                "trioreg.request_id": exchange.request_id,
            },
        )
        exchange.span = span
        _span.set(span)
        logs.trace_id.set(format_trace_id(span.get_span_context().trace_id))

    def end(self, exchange: Exchange, status: int, received: int, sent: int) -> None:
        span = exchange.span
        if not isinstance(span, Span):
            return
        operation = OPERATIONS[exchange.operation]
        span.update_name(f"{exchange.method} {operation}")
        span.set_attributes(
            {
                "http.response.status_code": status,
                "http.request.body.size": received,
                "http.response.body.size": sent,
                "trioreg.operation": operation,
            }
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        exchange.span = None
        _span.set(None)

    async def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        with trio.move_on_after(_CLOSE_SECONDS):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)

    def _children(self, transfer: Transfer) -> None:
        span = _span.get()
        began = getattr(span, "start_time", None)
        if span is None or began is None:
            return  # Not sampled, or not a request of a client.
        context = set_span_in_context(span)
        for stage, seconds in transfer.spent().items():
            attributes: dict[str, Any] = {"trioreg.sum": True, "trioreg.bytes": transfer.received}
            child = self._tracer.start_span(stage, context, SpanKind.INTERNAL, attributes, start_time=began)
            child.end(began + int(seconds * 1e9))
