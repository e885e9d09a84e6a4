"""Admission: an upload gets its place before the first byte of a body, waits for it, or is told 429.

A place stands for a part of the budget (`places_for`). It is taken when a session begins, so that a push
is refused before its client has begun to send; kept for some seconds between two requests of a session;
and held while a body is received. A body that is being received is never interrupted.

Rules:

- A client (an identity, or an address without one) takes less than `GREED` times what is left free, of
  the places as of the queue. So one client alone gets nearly all of them, and there is always some left for
  those who come next: n clients that want everything leave ``total / (GREED × n + 1)`` (the dynamic
  threshold of Choudhury and Hahne, "Dynamic Queue Length Thresholds", 1998).
- Clients that wait have their turn one after the other, however many uploads each of them has waiting.
- Whoever may have a place has it at once: who waits waits for others to give theirs back.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline import turns
from trioreg.pipeline.turns import Turns

GREED = 8

# An upload of a slow client has no block for most of its time, and one that waits for a block holds none: so
# little of the budget for each, and the default of 40 MiB lets a thousand slow clients of one address in.
BYTES_FOR_A_PLACE = 32 * 1024

# Between POST and PATCH, or two chunks: a client that goes on does so within a round trip or two.
KEPT_SECONDS = 10.0


def places_for(budget: int) -> int:
    """Uploads at once for a budget of so many bytes."""
    return budget // BYTES_FOR_A_PLACE


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """`places` uploads at once; `queue` more may wait, `wait` seconds each. A client has `each` (0: any)."""

    places: int = places_for(40 * 2**20)
    queue: int = 1024
    wait: float = 10.0
    each: int = 0


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    """`kept` places are between two requests of their session. `admitted` and `refused` since the start."""

    places: int
    held: int
    kept: int
    waiting: int
    clients: int
    admitted: int
    refused: int


class Places:
    """So many of something, shared by clients as the first rule says."""

    def __init__(self, total: int):
        self.total = total
        self.taken = 0
        self._held: dict[str, int] = {}

    def may(self, client: str, each: int = 0) -> bool:
        """Whether `client` may take one more; `each` at most, if that is not 0."""
        held = self._held.get(client, 0)
        return held < GREED * (self.total - self.taken) and not 0 < each <= held

    def take(self, client: str) -> None:
        self.taken += 1
        self._held[client] = self._held.get(client, 0) + 1

    def give(self, client: str) -> None:
        self.taken -= 1
        left = self._held[client] - 1
        if left:
            self._held[client] = left
        else:
            del self._held[client]

    @property
    def clients(self) -> int:
        return len(self._held)


class Place:
    """What one has while in there."""

    __slots__ = ("upload",)

    def __init__(self) -> None:
        self.upload: str | None = None

    def keep(self, upload: str) -> None:
        """When the context ends, keep the place for the next request of the session `upload`."""
        self.upload = upload


class Admission:
    """The places of one process. `limits` may be replaced at any time; nobody who is in is sent away."""

    def __init__(self, limits: AdmissionLimits | None = None):
        limits = limits or AdmissionLimits()
        self._limits = limits
        self._places = Places(limits.places)
        self._queue = Places(limits.queue)
        self._waiting: Turns[trio.Event] = Turns()
        self._kept: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._admitted = self._refused = 0

    @property
    def limits(self) -> AdmissionLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._places.total, self._queue.total = limits.places, limits.queue
        self._admit()

    @asynccontextmanager
    async def place(self, client: str, upload: str | None = None) -> AsyncIterator[Place]:
        """Have a place: the one that is kept for the session `upload`, or another.

        At the end it is free again, unless it is to be kept. What the task then asks of the budget is asked
        for this client. Raises TOOMANYREQUESTS with ``Retry-After``. Cancelling gives up the place, also the
        one in the queue.
        """
        if upload is None or not self._take_over(client, upload):
            await self._enter(client)
        place = Place()
        turns.client.set(client)
        try:
            yield place
        finally:
            if place.upload is None:
                self._leave(client)
            else:
                self._keep(client, place.upload)

    def drop(self, upload: str) -> None:
        """The session has no more bodies: its place, if one is kept, is free."""
        kept = self._kept.pop(upload, None)
        if kept is not None:
            self._leave(kept[0])

    def expire(self) -> None:
        """Free the places that were kept too long. To be called every second or so."""
        now = trio.current_time()
        while self._kept:
            upload, (_client, until) = next(iter(self._kept.items()))
            if until > now:
                return
            self.drop(upload)

    def statistics(self) -> AdmissionStatistics:
        return AdmissionStatistics(
            places=self._places.total,
            held=self._places.taken,
            kept=len(self._kept),
            waiting=self._queue.taken,
            clients=self._places.clients,
            admitted=self._admitted,
            refused=self._refused,
        )

    def _take_over(self, client: str, upload: str) -> bool:
        kept = self._kept.pop(upload, None)
        if kept is None:
            return False
        if kept[0] == client:
            return True
        self._leave(kept[0])
        return False

    def _keep(self, client: str, upload: str) -> None:
        # Two requests at once of one session: one of them waits for the lease, and one place is enough.
        self.drop(upload)
        self._kept[upload] = (client, trio.current_time() + KEPT_SECONDS)

    async def _enter(self, client: str) -> None:
        self.expire()
        if not self._places.may(client, self._limits.each):
            await self._wait(client)
        else:
            self._places.take(client)
        self._admitted += 1

    async def _wait(self, client: str) -> None:
        if not self._queue.may(client):
            raise self._refusal("the queue is full")
        turn = trio.Event()
        self._queue.take(client)
        self._waiting.add(client, turn)
        try:
            with trio.move_on_after(self._limits.wait):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self._leave(client)
            raise
        finally:
            if not turn.is_set():
                self._waiting.remove(client, turn)
                self._queue.give(client)
        if not turn.is_set():
            raise self._refusal("no place came free in time")

    def _leave(self, client: str) -> None:
        self._places.give(client)
        self._admit()

    def _admit(self) -> None:
        """Give free places to those who wait."""
        while self._places.taken < self._places.total:
            following = self._waiting.next(lambda client: self._places.may(client, self._limits.each))
            if following is None:
                return
            client, turn = following
            self._queue.give(client)
            self._places.take(client)
            turn.set()

    def _refusal(self, reason: str) -> RegistryError:
        self._refused += 1
        seconds = max(1, math.ceil(self._limits.wait))
        return RegistryError(
            ErrorCode.TOOMANYREQUESTS, {"reason": reason}, headers={"Retry-After": str(seconds)}
        )
