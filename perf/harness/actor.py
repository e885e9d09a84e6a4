"""What one client of a scenario does: pushes in the shapes of real clients, pulls, small requests.

The rule: an operation returns only when the server's answers were right; anything else leaves as Refused
or OSError with the reason. A push that breaks is taken up where the server says it stands, as docker and
containerd do, as often as the scenario allows.
"""

from dataclasses import dataclass, field

import trio

from perf.bodies import Body, Digests, Source
from perf.harness.scenario import Cut, Group
from perf.operations import LONGEST_WAIT, MANIFEST, REPOSITORY, image_manifest, with_digest
from perf.plan import KIB
from perf.wire import Connection, Refused, Reply

OCTETS = {"Content-Type": "application/octet-stream"}
AGAIN = 0.5  # seconds before a push that broke is taken up, times the number of tries
RESUMES = 5  # tries of one who left and came back while its own last bytes were still being written
CONFIG_SIZE = 2 * KIB  # of an image's config


@dataclass
class Totals:
    """What a process has moved and ended so far."""

    in_flight: int = 0
    sent: int = 0
    received: int = 0
    done: int = 0
    failed: int = 0


@dataclass(frozen=True)
class World:
    """What all clients of a process use. `opening` bounds how many open a connection for a push at once."""

    port: int
    source: Source
    digests: Digests
    totals: Totals = field(default_factory=Totals)
    opening: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(64))
    never: trio.Event = field(default_factory=trio.Event)


class Left(Exception):
    """The client went away in the middle of its body, as the scenario wants."""


class Actor:
    """One client: a connection it keeps while it can."""

    def __init__(self, world: World, group: Group) -> None:
        self._world = world
        self._group = group
        self._pace = group.rate.pace if group.rate is not None else None
        self._connection: Connection | None = None

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def push(self, shape: str, body: Body, cut: Cut | None = None) -> None:
        """Push `body`; Left when it is `cut` for good."""
        digest = self._world.digests.of(body)
        where, tries, resumed = "", 0, False
        while True:
            try:
                if where:
                    await self._resume(where, body, digest)
                else:
                    where = await self._open()
                    await self._send(shape, where, body, digest, cut)
                return
            except Left:
                if cut is None or not cut.resume:
                    raise
                cut, resumed = None, True
            except (Refused, OSError) as error:
                again = may_pass(getattr(error, "status", 0), resumed=resumed)
                if not again or tries >= self._group.retries + (RESUMES if resumed else 0):
                    raise
                tries += 1
                await trio.sleep(AGAIN * tries)
            self.hang_up()

    async def image(self, body: Body, tag: str) -> None:
        """A config, a layer the way docker sends it, and a manifest under `tag`."""
        config = Body(f"{body.name}/config", CONFIG_SIZE)
        await self.push("containerd", config)
        await self.push("docker", body)
        await self.put_manifest(config, body, tag)

    async def put_manifest(self, config: Body, layer: Body, tag: str) -> None:
        content = image_manifest(config, layer, self._world.digests)
        path = f"{REPOSITORY}/manifests/{tag}"
        (await self._request("PUT", path, {"Content-Type": MANIFEST}, content)).must_be(201)

    async def get_manifest(self, config: Body, layer: Body, tag: str) -> None:
        """The bytes that were pushed, or Refused."""
        path = f"{REPOSITORY}/manifests/{tag}"
        pulled = (await self._request("GET", path, {"Accept": MANIFEST})).must_be(200)
        if pulled.body != image_manifest(config, layer, self._world.digests):
            raise Refused("another manifest than was pushed")

    async def head(self, body: Body) -> None:
        path = f"{REPOSITORY}/blobs/{self._world.digests.of(body)}"
        known = (await self._request("HEAD", path)).must_be(200)
        if known.length != body.size:
            raise Refused(f"a blob of {body.size} bytes has Content-Length {known.length}")

    async def pull(self, body: Body, cut: Cut | None = None) -> None:
        """Pull `body` and compare every byte; Left when it is `cut`."""
        connection = await self._connected()
        await connection.send_head("GET", f"{REPOSITORY}/blobs/{self._world.digests.of(body)}", {})
        head = (await connection.read_head()).must_be(200)
        if head.length != body.size:
            raise Refused(f"a blob of {body.size} bytes came with Content-Length {head.length}")
        position, left = 0, self._pace.burst if self._pace is not None else body.size
        while position < body.size:
            if cut is not None and position >= cut.at:
                self._leave(connection, cut)
            piece = await connection.read_some(min(body.size - position, left))
            if not self._world.source.matches(body, position, bytearray(piece)):
                raise Refused(f"other bytes than were pushed, near {position}")
            position += len(piece)
            self._world.totals.received += len(piece)
            left -= len(piece)
            if left <= 0 and self._pace is not None:
                left = self._pace.burst
                await trio.sleep(self._pace.pause)
            else:
                await trio.lowlevel.checkpoint()

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.usable:
            return self._connection
        self.hang_up()
        self._connection = await Connection.open("127.0.0.1", self._world.port)
        return self._connection

    async def _request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        return await (await self._connected()).request(method, path, headers, body)

    async def _open(self) -> str:
        """POST until it is not 429; the session's location."""
        async with self._world.opening:
            while True:
                reply = await self._request("POST", f"{REPOSITORY}/blobs/uploads/")
                if reply.status != 429:
                    return reply.must_be(202).location
                after = reply.headers.get("retry-after", "1")
                await trio.sleep(min(float(after) if after.isdecimal() else 1.0, LONGEST_WAIT))

    async def _send(self, shape: str, where: str, body: Body, digest: str, cut: Cut | None) -> None:
        """The body of a fresh session in the way of a client."""
        if shape == "containerd":
            reply = await self._body("PUT", with_digest(where, digest), body, cut=cut)
            check_created(reply, digest)
            return
        if shape == "docker":
            where = (await self._body("PATCH", where, body, chunked=True, cut=cut)).must_be(202).location
        else:
            piece = self._group.piece if shape == "chunked" else max(body.size, 1)
            where = await self._pieces(where, body, 0, piece, ranges=shape == "chunked", cut=cut)
        check_created(await self._request("PUT", with_digest(where, digest)), digest)

    async def _resume(self, where: str, body: Body, digest: str) -> None:
        """Ask how far it came, send the rest in one piece with its range, and close."""
        reply = await self._request("GET", where)
        if reply.status == 404:  # the session has ended: perhaps with the 201 that was lost
            await self.head(body)
            return
        last = reply.must_be(204).headers.get("range", "").rpartition("-")[2]
        offset = int(last) + 1 if last.isdecimal() and last != "0" else 0
        if offset < body.size:
            where = await self._pieces(where, body, offset, body.size, ranges=True)
        check_created(await self._request("PUT", with_digest(where, digest)), digest)

    async def _pieces(
        self, where: str, body: Body, start: int, piece: int, *, ranges: bool, cut: Cut | None = None
    ) -> str:
        """PATCHes of `piece` bytes from `start`; the location after the last."""
        while start < body.size:
            stop = min(start + piece, body.size)
            headers = {"Content-Range": f"{start}-{stop - 1}"} if ranges else {}
            reply = await self._body("PATCH", where, body, start=start, stop=stop, cut=cut, headers=headers)
            where = reply.must_be(202).location
            start = stop
        return where

    async def _body(
        self,
        method: str,
        path: str,
        body: Body,
        *,
        start: int = 0,
        stop: int | None = None,
        chunked: bool = False,
        cut: Cut | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request with bytes `start` to `stop` of the body. Left at the byte of the `cut`."""
        connection = await self._connected()
        wire = self._world.source.wire(body, chunked=chunked)
        stop = wire.length if stop is None or chunked else stop
        length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(stop - start)}
        await connection.send_head(method, path, {**OCTETS, **length, **(headers or {})})
        end = min(stop, max(cut.at, start)) if cut is not None else stop
        sent = await connection.send_body(
            wire, pace=self._pace, lifted=self._world.never, start=start, stop_at=end, moved=self._sent
        )
        if sent == end < stop and cut is not None:
            self._leave(connection, cut)
        connection.usable = sent == stop
        return await connection.read_reply(method)

    def _sent(self, count: int) -> None:
        self._world.totals.sent += count

    def _leave(self, connection: Connection, cut: Cut) -> None:
        if cut.how == "reset":
            connection.reset()
        else:
            connection.close()
        raise Left


def may_pass(status: int, *, resumed: bool) -> bool:
    """Whether to try again is worth it: a broken connection, a server in trouble, an offset that moved."""
    return not status or (status >= 500 and status != 507) or (resumed and status == 416)


def check_created(reply: Reply, digest: str) -> None:
    """Refused unless it is 201 for this digest."""
    found = reply.must_be(201).headers.get("docker-content-digest", digest)
    if found != digest:
        raise Refused(f"201 for digest {found!r}")
