"""What one client does to a registry: push, pull, small requests, and a mix with cut connections.

Owns the operations and the state of a group of clients while it runs. The rule: an operation
returns only when the server's answer was right (status, digest, length, every byte of a pull);
anything else is raised, as Refused or OSError, and counted as a failure with its reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from perf.bodies import Body, Digests, Source
from perf.plan import KIB, MIB, Group, Kind, Tally
from perf.wire import Connection, Refused, Reply

REPOSITORY = "/v2/perf/load"
UNKNOWN = f"{REPOSITORY}/blobs/sha256:{'0' * 64}"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PROBLEMS_KEPT = 5
LONGEST_WAIT = 5.0  # seconds a client believes a Retry-After
SMALL, MIDDLE, LARGE = KIB, 256 * KIB, 8 * MIB  # of the blobs in a mix
CUT = MIB  # bytes of a large one that are sent or read before the connection is cut


class Running:
    """One group while it runs: its tally and the moments others wait for."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.tally = Tally(group.name)
        self.all_moving = trio.Event()  # every client has begun a body, or is through
        self.over = trio.Event()
        self.lifted = trio.Event()
        self._moving: set[int] = set()
        self._open = 0

    def moves(self, client: int) -> None:
        self._moving.add(client)
        if len(self._moving) == self.group.clients:
            self.all_moving.set()

    def opened(self) -> None:
        self._open += 1
        self.tally.open_peak = max(self.tally.open_peak, self._open)

    def closed(self) -> None:
        self._open -= 1

    def lift(self) -> None:
        self.tally.open_at_lift = self._open
        self.lifted.set()

    def failed(self, why: str) -> None:
        self.tally.failed += 1
        if len(self.tally.problems) < PROBLEMS_KEPT and why not in self.tally.problems:
            self.tally.problems.append(why)


@dataclass(frozen=True)
class Shared:
    """What all clients of a process use. `opening` bounds how many open an upload at once."""

    host: str
    port: int
    source: Source
    digests: Digests
    opening: trio.CapacityLimiter


class Client:
    """One client of a group: a connection it keeps while it can, and the operations it knows."""

    def __init__(self, shared: Shared, running: Running, number: int) -> None:
        self._shared = shared
        self._running = running
        self._group = running.group
        self._number = number
        self._connection: Connection | None = None

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def operate(self, number: int) -> None:
        """Operation `number` of the group. Refused or OSError when it did not go right."""
        match self._group.kind:
            case Kind.PUSH:
                await self.push(self._body(number), chunked=self._group.chunked)
            case Kind.PULL:
                await self.pull(self._body(number))
            case Kind.SMALL:
                await self.small(number)
            case Kind.MIXED:
                await self.mixed(number)

    def _body(self, number: int, size: int = 0) -> Body:
        index = number % self._group.distinct if self._group.distinct else number
        size = size or self._group.size
        return Body(f"{self._group.names or self._group.name}/{size}/{index}", size)

    async def _connected(self) -> Connection:
        if self._connection is not None and self._connection.usable:
            return self._connection
        self.hang_up()
        self._connection = await Connection.open(self._shared.host, self._shared.port)
        return self._connection

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        return await (await self._connected()).request(method, path, headers, body)

    # pushes

    async def push(self, body: Body, *, chunked: bool) -> None:
        """Push `body` and ask whether it is there."""
        digest = self._shared.digests.of(body)
        where = await self._open_upload()
        self._running.opened()
        try:
            reply = await self._send(body, where, digest, chunked=chunked)
        finally:
            self._running.closed()
        reply.must_be(201)
        if reply.headers.get("docker-content-digest") != digest:
            raise Refused(f"201 for digest {reply.headers.get('docker-content-digest')!r}")
        known = (await self._request("HEAD", f"{REPOSITORY}/blobs/{digest}")).must_be(200)
        if known.length != body.size:
            raise Refused(f"a blob of {body.size} bytes has Content-Length {known.length}")

    async def _open_upload(self) -> str:
        async with self._shared.opening:
            while True:
                reply = await self._request("POST", f"{REPOSITORY}/blobs/uploads/")
                if reply.status != 429:
                    return reply.must_be(202).location
                self._running.tally.asked_to_wait += 1
                after = reply.headers.get("retry-after", "1")
                await trio.sleep(min(float(after) if after.isdecimal() else 1.0, LONGEST_WAIT))

    async def _send(self, body: Body, where: str, digest: str, *, chunked: bool) -> Reply:
        """As docker does (one PATCH in chunked coding, an empty PUT), or in one PUT."""
        if not chunked:
            length = {"Content-Length": str(body.size)}
            return await self._send_body("PUT", with_digest(where, digest), body, length)
        coding = {"Transfer-Encoding": "chunked"}
        reply = await self._send_body("PATCH", where, body, coding)
        return await self._request("PUT", with_digest(reply.must_be(202).location, digest))

    async def _send_body(
        self, method: str, path: str, body: Body, headers: dict[str, str], cut: int | None = None
    ) -> Reply:
        connection = await self._connected()
        wire = self._shared.source.wire(body, chunked="Transfer-Encoding" in headers)
        headers["Content-Type"] = "application/octet-stream"
        await connection.send_head(method, path, headers)
        self._running.moves(self._number)
        sent = await connection.send_body(
            wire, pace=self._group.pace, lifted=self._running.lifted, stop_at=cut
        )
        self._running.tally.bytes += sent
        return await connection.read_reply(method) if cut is None else Reply(0, {})

    # pulls

    async def pull(self, body: Body, cut: int | None = None) -> None:
        """Pull `body` and compare every byte, or leave after `cut` bytes."""
        digest = self._shared.digests.of(body)
        connection = await self._connected()
        await connection.send_head("GET", f"{REPOSITORY}/blobs/{digest}", {})
        head = (await connection.read_head()).must_be(200)
        if head.length != body.size:
            raise Refused(f"a blob of {body.size} bytes came with Content-Length {head.length}")
        self._running.moves(self._number)
        position = 0
        while position < (body.size if cut is None else cut):
            piece = await connection.read_some(body.size - position)
            if not self._shared.source.matches(body, position, bytearray(piece)):
                raise Refused(f"other bytes than were pushed, near {position}")
            position += len(piece)
            self._running.tally.bytes += len(piece)

    # small requests

    async def small(self, number: int) -> None:
        """In turn: the version check, a HEAD and a tag list that are not there, a tiny push."""
        match number % 4:
            case 0:
                (await self._request("GET", "/v2/")).must_be(200)
            case 1:
                (await self._request("HEAD", UNKNOWN)).must_be(404)
            case 2:
                (await self._request("GET", "/v2/perf/nothing/tags/list")).must_be(200, 404)
            case _:
                await self.push(self._body(number, SMALL), chunked=False)

    # the mix

    async def mixed(self, number: int) -> None:
        """Ten kinds in turn. A client does ten in a row, so what is pulled has been pushed."""
        first = number - number % 10
        small, middle = self._body(first, SMALL), self._body(first, MIDDLE)
        match number % 10:
            case 0:
                await self.push(small, chunked=False)
            case 1:
                await self.push(middle, chunked=True)
            case 2:
                await self.pull(middle)
            case 3:
                await self._cut_push(self._body(number, LARGE), chunked=True)
            case 4:
                await self._manifest(small, middle, f"tag-{first % 1000}")
            case 5:
                await self._wrong_digest(self._body(number, MIDDLE))
            case 6:
                await self._cut_push(self._body(number, LARGE), chunked=False)
            case 7:
                again = middle if first % self._group.each else Body("pulled by all", LARGE)
                await self.push(again, chunked=False)
            case 8:
                await self.pull(Body("pulled by all", LARGE), cut=CUT)
                (await self._connected()).reset()
            case _:
                digest = self._shared.digests.of(middle)
                (await self._request("HEAD", f"{REPOSITORY}/blobs/{digest}")).must_be(200)
                (await self._request("HEAD", UNKNOWN)).must_be(404)

    async def _cut_push(self, body: Body, *, chunked: bool) -> None:
        """Leave in the middle of a body, once with FIN and once with RST."""
        where = await self._open_upload()
        self._running.opened()
        try:
            if chunked:
                coding = {"Transfer-Encoding": "chunked"}
                await self._send_body("PATCH", where, body, coding, cut=CUT)
                self.hang_up()
            else:
                path = with_digest(where, self._shared.digests.of(body))
                length = {"Content-Length": str(body.size)}
                await self._send_body("PUT", path, body, length, cut=CUT)
                (await self._connected()).reset()
        finally:
            self._running.closed()

    async def _wrong_digest(self, body: Body) -> None:
        """400 is due, and the blob must not be there under the wrong name."""
        wrong = f"sha256:{self._shared.digests.of(body)[7:][::-1]}"
        reply = await self._send(body, await self._open_upload(), wrong, chunked=False)
        reply.must_be(400)
        (await self._request("HEAD", f"{REPOSITORY}/blobs/{wrong}")).must_be(404)

    async def _manifest(self, config: Body, layer: Body, tag: str) -> None:
        """Push an image manifest under `tag`, pull it, and get the same bytes."""
        digests = self._shared.digests
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("config.v1+json", config, digests),
            "layers": [descriptor("layer.v1.tar", layer, digests)],
        }
        content = json.dumps(manifest).encode()
        path = f"{REPOSITORY}/manifests/{tag}"
        (await self._request("PUT", path, {"Content-Type": MANIFEST}, content)).must_be(201)
        pulled = (await self._request("GET", path, {"Accept": MANIFEST})).must_be(200)
        if pulled.body != content:
            raise Refused("another manifest than was pushed")


def descriptor(media_type: str, body: Body, digests: Digests) -> dict[str, object]:
    """The OCI descriptor of a body."""
    media_type = f"application/vnd.oci.image.{media_type}"
    return {"mediaType": media_type, "digest": digests.of(body), "size": body.size}


def image_manifest(config: Body, layer: Body, digests: Digests) -> bytes:
    """An OCI image manifest with one layer."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", config, digests),
        "layers": [descriptor("layer.v1.tar", layer, digests)],
    }
    return json.dumps(manifest).encode()


def with_digest(location: str, digest: str) -> str:
    """An upload's location with the digest that closes it."""
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def sizes_of(group: Group) -> set[int]:
    """The sizes of the bodies a group will need digests of."""
    return {group.size} | ({SMALL, MIDDLE, LARGE} if group.kind is Kind.MIXED else set())
