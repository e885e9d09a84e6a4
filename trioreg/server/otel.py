"""Loads tracing where it is switched on: without it nothing of OpenTelemetry is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from trioreg.config import Config, ConfigError
from trioreg.pipeline.transfers import Transfers

if TYPE_CHECKING:
    from trioreg.server.tracing import Tracing


def check_tracing(config: Config) -> None:
    """Raises ConfigError when tracing is switched on and not installed."""
    if config.otel_enabled and not _is_installed():
        raise ConfigError("otel.enabled: OpenTelemetry is not installed: pip install 'trioreg[otel]'")


def load_tracing(config: Config, transfers: Transfers) -> Tracing | None:
    if not config.otel_enabled:
        return None
    from trioreg.server.tracing import Tracing, exporting_provider

    return Tracing(exporting_provider(), transfers)


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False
