"""What every operation needs, put together once at start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trioreg.api.arriving import Arriving
from trioreg.api.exchange import Exchange, Reply
from trioreg.api.rates import Rates
from trioreg.api.remembered import Remembered
from trioreg.auth.authorizer import AllowAll, Authorizer
from trioreg.events.event import Recorder
from trioreg.pipeline.admission import Admission
from trioreg.registry import Registry

Page = Callable[[Exchange], Awaitable[Reply]]


class Tracing(Protocol):
    """Told of each request of the API when it begins and when it is over (bytes of content)."""

    def begin(self, exchange: Exchange) -> None: ...

    def end(self, exchange: Exchange, status: int, received: int, sent: int) -> None: ...


@dataclass(slots=True)  # not frozen: plain values among them change while it runs (server.reload)
class Service:
    """`chunk_min_length`: bytes that we advise for chunks (OCI-Chunk-Min-Length), 0 for no advice.

    `manifest_seconds`: a manifest must arrive within this time, because its bytes are held meanwhile.
    `arriving`: small bodies that are not whole yet.
    `pages`: what is served besides the API, by exact path.

    `tracing`: None is off, and costs a request two looks.

    `remembered`: answers that may be given again; 0 bytes of them where nobody says more.

    `events`: whom to tell what was done; None is nobody, and costs a request one look.
    """

    registry: Registry
    authorizer: Authorizer = field(default_factory=AllowAll)
    chunk_min_length: int = 0
    manifest_seconds: float = 60.0
    events: Recorder | None = None
    admission: Admission = field(default_factory=Admission)
    rates: Rates = field(default_factory=Rates)
    arriving: Arriving = field(default_factory=Arriving)
    pages: Mapping[str, Page] = field(default_factory=dict)
    tracing: Tracing | None = None
    remembered: Remembered = field(default_factory=lambda: Remembered(0))
