"""Clients of the speed benchmark that push a blob, each in its way.

The rule: everything about a body that can be known before the clock starts is, and 201 is believed
only with the right digest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from perf.attempt import Attempt
from perf.bodies import Body, Wire
from perf.lean import PAUSE, Line, Reply, Steps, request
from perf.operations import LONGEST_WAIT, REPOSITORY, with_digest
from perf.plan import MIB
from perf.wire import Refused

OCTETS = "Content-Type: application/octet-stream"


@dataclass(frozen=True)
class Blob:
    """A body with everything about it that can be known before the clock starts."""

    digest: str
    size: int
    wire: Wire


def blobs(run: Attempt, name: str, count: int, size: int, *, chunked: bool = False) -> list[Blob]:
    made = []
    for number in range(count):
        body = Body(f"{name}/{number}", size)
        made.append(Blob(run.digests.of(body), size, run.source.wire(body, chunked=chunked)))
    return made


def start(run: Attempt, line: Line) -> Steps[str]:
    """POST until it is not 429; the upload's location."""
    while True:
        reply = yield from line.ask(request("POST", f"{REPOSITORY}/blobs/uploads/"), 202, 429)
        if reply.status == 202:
            return reply.location
        run.remark("a client was told 429 at POST and came back")
        after = reply.header("retry-after")
        yield PAUSE, min(float(after) if after.isdecimal() else 1.0, LONGEST_WAIT)


def check_created(reply: Reply, digest: str) -> None:
    if reply.header("docker-content-digest") not in ("", digest):
        raise Refused(f"201 for digest {reply.header('docker-content-digest')!r}")


def put(run: Attempt, line: Line, blob: Blob) -> Steps[None]:
    """POST, then one PUT with a length."""
    where = with_digest((yield from start(run, line)), blob.digest)
    head = request("PUT", where, [OCTETS], length=blob.size)
    check_created((yield from line.upload(head, blob.wire, 201)), blob.digest)


def docker_push(run: Attempt, line: Line, blob: Blob) -> Steps[None]:
    """POST, one PATCH in chunked coding, an empty PUT."""
    head = request("PATCH", (yield from start(run, line)), length=-1)
    where = (yield from line.upload(head, blob.wire, 202)).location
    reply = yield from line.ask(request("PUT", with_digest(where, blob.digest)), 201)
    check_created(reply, blob.digest)


def patches(run: Attempt, line: Line, blob: Blob) -> Steps[None]:
    """POST, a PATCH with Content-Range for every MiB, an empty PUT."""
    where = yield from start(run, line)
    for at in range(0, blob.size, MIB):
        stop = min(at + MIB, blob.size)
        head = request("PATCH", where, [OCTETS, f"Content-Range: {at}-{stop - 1}"], length=stop - at)
        where = (yield from line.upload(head, blob.wire, 202, start=at, stop=stop)).location
    reply = yield from line.ask(request("PUT", with_digest(where, blob.digest)), 201)
    check_created(reply, blob.digest)


Push = Callable[[Attempt, Line, Blob], Steps[None]]


def each_its_own(run: Attempt, push: Push, made: Sequence[Blob]) -> Iterator[Steps[None]]:
    """A client and a connection for each blob."""

    def client(blob: Blob) -> Steps[None]:
        with Line(run.port) as line:
            yield from push(run, line, blob)

    return (client(blob) for blob in made)
