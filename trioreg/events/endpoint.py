"""A receiver of webhooks: its queue on the disk, and the task that delivers from it.

Rules: a request puts its event into the queue and has nothing more to do with it; a receiver that is slow or
dead makes the queue longer and nothing else. Delivered at least once, in order within a process, one at a
time. One that fails is tried again, later and later, `attempts` times; then, or when the receiver says that
it will never want it, it goes to ``dead.jsonl``. The queue and that file are bounded; what does not fit into
the queue is counted and said in the log.
"""

from __future__ import annotations

import hashlib
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import trio

from trioreg.events import spool
from trioreg.events.batches import Batches, append
from trioreg.events.cloudevent import CONTENT_TYPE, cloud_event, signature_headers
from trioreg.events.event import Event
from trioreg.events.post import NoAnswer, post
from trioreg.events.spool import Spool
from trioreg.logs import Log
from trioreg.metrics.table import WEBHOOK_EVENTS

_log = Log(__name__)

# Between two attempts: 1 s, 2 s, 4 s … and never more than this, each shortened by up to half.
_LONGEST_DELAY = 300.0

# How long the queue of a process that died may wait for one of the others.
_ADOPT_SECONDS = 30.0

# Two files of so much at most.
_DEAD_BYTES = 16 * 2**20

# A receiver that answers so may take the event later; other answers that are no success are final.
_LATER = frozenset({401, 403, 404, 408, 425, 429})

_COMPLAIN_SECONDS = 60.0

_QUEUED, _DELIVERED, _RETRIED, _DEAD, _LOST = map(
    WEBHOOK_EVENTS.at, ("queued", "delivered", "retried", "dead", "lost")
)


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """`actions`: what is told. `timeout` in seconds for a delivery. `queue_bytes`: of all processes together.

    `secret`: signs each delivery; None signs none. `tls`: whom https trusts, None is the system's choice.
    """

    actions: frozenset[str]
    secret: bytes | None = None
    timeout: float = 10.0
    attempts: int = 12
    queue_bytes: int = 64 * 2**20
    durable: bool = True
    tls: ssl.SSLContext | None = None


class Endpoint:
    """`wait` sleeps between attempts. Raises OSError when the queue cannot be made; blocks."""

    def __init__(
        self,
        url: str,
        root: Path,
        settings: EndpointSettings,
        wait: Callable[[float], Awaitable[object]] = trio.sleep,
    ):
        self._url = urlsplit(url)
        self._settings = settings
        self._wait = wait
        self._directory = root / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._own = spool.create(self._directory, durable=settings.durable)
        (self._directory / "url").write_text(url + "\n")
        self._orphans: list[Spool] = []
        self._elsewhere = 0
        self._batches = Batches(self._write, str(self._directory))
        self._more = trio.Event()
        self._failures = 0
        self._complained = -_COMPLAIN_SECONDS
        self.delivered = 0
        self.dead = 0
        self.refused = 0
        self._tls = settings.tls
        if self._url.scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()

    @property
    def queued(self) -> int:
        """Bytes that wait here, on the disk and in memory; those of other processes as last seen."""
        mine = self._own.size + sum(each.size for each in self._orphans)
        return mine + self._elsewhere + self._batches.waiting

    @property
    def waiting(self) -> int:
        return self._batches.waiting

    def offer(self, event: Event) -> bool:
        """Take an event, if it is one for this endpoint and there is room."""
        if event.action not in self._settings.actions or event.target == "blob":
            return False
        line = cloud_event(event) + b"\n"
        if self.queued + len(line) <= self._settings.queue_bytes and self._batches.add(line):
            WEBHOOK_EVENTS.add(at=_QUEUED)
            return True
        self.refused += 1
        WEBHOOK_EVENTS.add(at=_LOST)
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_SECONDS:
            self._complained = now
            _log.error("the queue of a webhook is full, events are lost", host=self._url.netloc,
                       lost=self.refused)  # fmt: skip
        return False

    async def flush(self) -> None:
        """Wait until what was taken is in the queue on the disk."""
        if self._batches.waiting:
            await self._batches.flush()
            self._more.set()

    def _write(self, data: bytes) -> int:
        return self._own.write(data)

    async def run(self) -> None:
        """Deliver, until cancelled. What is under way then is delivered again later."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._adopt)
            while True:
                self._more = trio.Event()
                found = await trio.to_thread.run_sync(self._next)
                if found is None:
                    await self._more.wait()
                else:
                    await self._deliver(*found)

    def close(self) -> None:
        """Let go of the queues; those that are not empty are for others, or for the next start. Blocks."""
        for each in (*self._orphans, self._own):
            each.close()

    async def _adopt(self) -> None:
        while True:
            await trio.to_thread.run_sync(self._look_for_orphans)
            self._more.set()
            await trio.sleep(_ADOPT_SECONDS)

    def _look_for_orphans(self) -> None:
        for found in spool.adopt(self._directory, durable=self._settings.durable):
            if found.next() is None:
                found.close()
            else:
                self._orphans.append(found)
        ours = {each.directory for each in (*self._orphans, self._own)}
        self._elsewhere = sum(
            segment.stat().st_size
            for segment in self._directory.glob("queue-*/*.jsonl")
            if segment.parent not in ours
        )

    def _next(self) -> tuple[Spool, bytes] | None:
        while self._orphans:
            line = self._orphans[0].next()
            if line is not None:
                return self._orphans[0], line
            self._orphans.pop(0).close()
        line = self._own.next()
        return None if line is None else (self._own, line)

    async def _deliver(self, queue: Spool, body: bytes) -> None:
        for attempt in range(1, self._settings.attempts + 1):
            answer = await self._attempt(body)
            if isinstance(answer, int) and 200 <= answer < 300:
                self._failures = 0
                self.delivered += 1
                WEBHOOK_EVENTS.add(at=_DELIVERED)
                await trio.to_thread.run_sync(queue.done)
                return
            final = isinstance(answer, int) and answer < 500 and answer not in _LATER
            if final or attempt == self._settings.attempts:
                break
            if not self._failures:
                _log.warning("a webhook is not delivered, it is tried again", host=self._url.netloc,
                             answer=answer)  # fmt: skip
            self._failures += 1
            WEBHOOK_EVENTS.add(at=_RETRIED)
            await self._wait(backoff(self._failures))
        self.dead += 1
        WEBHOOK_EVENTS.add(at=_DEAD)
        _log.error("a webhook is given up", host=self._url.netloc, answer=answer, attempts=attempt)
        await trio.to_thread.run_sync(self._bury, body, str(answer), attempt)
        await trio.to_thread.run_sync(queue.done)

    async def _attempt(self, body: bytes) -> int | str:
        """The status of the answer, or why there was none."""
        headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "trioreg"}
        if self._settings.secret is not None:
            headers |= signature_headers(body, self._settings.secret, int(time.time()))
        try:
            with trio.fail_after(self._settings.timeout):
                return await post(self._url, headers, body, self._tls)
        except trio.TooSlowError:
            return f"no answer within {self._settings.timeout:g} seconds"
        except NoAnswer as why:
            return str(why)

    def _bury(self, body: bytes, reason: str, attempts: int) -> None:
        """Keep what was given up, for people: a file and the one before it."""
        path = self._directory / "dead.jsonl"
        line = msgspec.json.encode({"reason": reason, "attempts": attempts, "event": msgspec.Raw(body)})
        try:
            if path.exists() and path.stat().st_size >= _DEAD_BYTES:
                path.replace(path.with_name("dead.1.jsonl"))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                append(descriptor, line + b"\n", durable=False)
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error("a webhook that was given up is not kept", reason=error.strerror or str(error))


def backoff(failures: int) -> float:
    """Seconds until the next attempt after so many failures in a row; random, lest all come together."""
    longest = min(_LONGEST_DELAY, 2.0 ** min(failures - 1, 16))
    return longest * random.uniform(0.5, 1.0)
