"""`python -m perf access`: what access control costs, in one run against the same server without it.

All servers run at once and are asked in turn, round by round, so that they meet the same machine. The rule: a
ratio is of two figures of one round, and what is printed is the median of all rounds with the lowest and
highest beside it; what counts is CPU of the server, for clients and neighbours take the rest.
"""

import argparse
import base64
import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from perf.attempt import Attempt, Figure
from perf.bodies import Body, Digests, Source
from perf.contenders import QUIET, variable
from perf.lean import Line, Steps, request
from perf.machine import this_machine
from perf.operations import MANIFEST, REPOSITORY, image_manifest
from perf.plan import KIB, MB
from perf.run import Settings, case_folder
from perf.server import Server
from perf.small import put_manifest
from perf.transfers import Blob, put

USER = "perf"
OPEN = "no access control"
LINES = 8  # connections; each client keeps its own
RULES = """\
[groups]
team = ["perf", "somebody"]

[[rule]]
repositories = ["other/**"]
who = ["@team"]
may = ["pull"]

[[rule]]
repositories = ["perf/**"]
who = ["@team"]
may = ["pull", "push"]

[[rule]]
who = ["root"]
may = ["pull", "push", "delete", "admin"]
"""


@dataclass(frozen=True)
class Scale:
    """Requests, images and bytes of one figure."""

    requests: int = 4000
    images: int = 16
    size: int = 100 * MB


QUICK = Scale(800, 8, 20 * MB)


class Way:
    """A server with one kind of access control, and who asks it. `figures` by the name of the measure."""

    def __init__(self, name: str, settings: dict[str, str], home: Path, tools: tuple[Source, Digests]):
        self.name = name
        self.tokens = "auth.tokens" in settings
        self.figures: dict[str, list[Figure]] = {}
        self._password = secrets.token_urlsafe(12)
        if settings:
            (home / "users").write_bytes(_hashed(USER, self._password))
            (home / "rules").write_text(RULES)
        named = {
            key: str(home / value) if value in ("users", "rules") else value
            for key, value in settings.items()
        }
        self.server = Server(
            home, settings={variable(key): value for key, value in {**QUIET, **named}.items()}
        )
        self._tools = tools
        self._open = not settings

    def attempt(self) -> Attempt:
        return Attempt(self.server, *self._tools)

    @property
    def fields(self) -> bytes:
        """What this client says of itself; a token is fetched anew, for it lives some minutes."""
        if self._open:
            return b""
        basic = b"Authorization: Basic " + base64.b64encode(f"{USER}:{self._password}".encode()) + b"\r\n"
        return self._bearer(basic) if self.tokens else basic

    def _bearer(self, basic: bytes) -> bytes:
        found: list[bytes] = []

        def client() -> Steps[None]:
            with Line(self.server.port, basic) as line:
                scope = f"repository:{REPOSITORY.removeprefix('/v2/')}:pull,push"
                reply = yield from line.ask(request("GET", f"/auth/token?service=trioreg&scope={scope}"), 200)
                found.append(json.loads(reply.body)["token"].encode())

        self.attempt().drive([client()])
        return b"Authorization: Bearer " + found[0] + b"\r\n"


def _hashed(user: str, password: str) -> bytes:
    import bcrypt  # of the extra `auth`

    return user.encode() + b":" + bcrypt.hashpw(password.encode(), bcrypt.gensalt(8)) + b"\n"


WAYS: dict[str, dict[str, str]] = {
    OPEN: {},
    "password": {"auth.htpasswd": "users"},
    "password and rules": {"auth.htpasswd": "users", "auth.access": "rules"},
    "token": {"auth.htpasswd": "users", "auth.tokens": "true"},
    "token and rules": {"auth.htpasswd": "users", "auth.tokens": "true", "auth.access": "rules"},
}


@dataclass
class Round:
    """One turn of one way: `made` are bodies that nobody has pushed yet."""

    run: Attempt
    fields: bytes
    name: str
    scale: Scale
    latest: bytes = field(default=b"")

    def blob(self, name: str, size: int) -> Blob:
        body = Body(f"{self.name}/{name}", size)
        return Blob(self.run.digests.of(body), size, self.run.source.wire(body, chunked=False))


def asked(path: str) -> Callable[[Round], tuple[list[Steps[None]], float]]:
    """The same GET again and again; clients, and thousands of requests."""

    def prepare(turn: Round) -> tuple[list[Steps[None]], float]:
        one = request("GET", path, [f"Accept: {MANIFEST}"])

        def client() -> Steps[None]:
            with Line(turn.run.port, turn.fields) as line:
                for _ in range(turn.scale.requests // LINES):
                    yield from line.ask(one, 200)

        return [client() for _ in range(LINES)], turn.scale.requests / 1000

    return prepare


def images(turn: Round) -> tuple[list[Steps[None]], float]:
    """Images of a layer of 1 MB and a config, five requests each."""
    numbers = range(turn.scale.images)
    layers = [Body(f"{turn.name}/layer/{number}", MB) for number in numbers]
    configs = [Body(f"{turn.name}/config/{number}", KIB) for number in numbers]
    blobs = [(turn.blob(f"layer/{number}", MB), turn.blob(f"config/{number}", KIB)) for number in numbers]
    pairs = zip(configs, layers, strict=True)
    contents = [image_manifest(config, layer, turn.run.digests) for config, layer in pairs]

    def client(first: int) -> Steps[None]:
        with Line(turn.run.port, turn.fields) as line:
            for number in range(first, turn.scale.images, LINES):
                for blob in blobs[number]:
                    yield from put(turn.run, line, blob)
                yield from line.ask(put_manifest(f"image-{number}", contents[number]), 201)

    return [client(first) for first in range(LINES)], turn.scale.images * 5 / 1000


def large(turn: Round) -> tuple[list[Steps[None]], float]:
    blob = turn.blob("large", turn.scale.size)

    def client() -> Steps[None]:
        with Line(turn.run.port, turn.fields) as line:
            yield from put(turn.run, line, blob)

    return [client()], turn.scale.size / 1e9


def seed(way: Way, digests: Digests) -> str:
    """A small image for everybody to ask for; the path of its layer."""
    layer, config = Body("seed/layer", 4 * KIB), Body("seed/config", KIB)
    turn = Round(way.attempt(), way.fields, "seed", QUICK)

    def client() -> Steps[None]:
        with Line(turn.run.port, turn.fields) as line:
            yield from put(turn.run, line, turn.blob("layer", 4 * KIB))
            yield from put(turn.run, line, turn.blob("config", KIB))
            yield from line.ask(put_manifest("latest", image_manifest(config, layer, digests)), 201)

    turn.run.drive([client()])
    return f"{REPOSITORY}/blobs/{digests.of(layer)}"


CASES = ("manifest-get", "blob-get", "images", "large")


def measure(
    ways: Sequence[Way], digests: Digests, scale: Scale, rounds: int, only: Sequence[str]
) -> Iterator[str]:
    """Each case, each round, each way in turn; the table of a case when it is complete."""
    layers = {seed(way, digests) for way in ways}
    [layer] = layers
    cases = {
        "manifest-get": (
            "GET of a manifest by tag",
            "1,000 requests",
            asked(f"{REPOSITORY}/manifests/latest"),
        ),
        "blob-get": ("GET of a blob of 4 KiB", "1,000 requests", asked(layer)),
        "images": ("push of images of 1 MB", "1,000 requests", images),
        "large": ("push of one large blob", "GB", large),
    }
    for case in [each for each in CASES if each in only or not only]:
        name, per, prepare = cases[case]
        for number in range(-1, rounds):  # the first warms up and is dropped
            for way in ways:
                turn = Round(way.attempt(), way.fields, f"{name}/{number}", scale)
                clients, amount = prepare(turn)
                with turn.run.stretch() as found:
                    before = cpu_seconds(way.server.pid)
                    turn.run.drive(clients, scale.size)
                    taken = cpu_seconds(way.server.pid) - before
                found.server_cpu = taken
                if number >= 0:
                    figure = found.figure(amount / found.seconds, amount)
                    way.figures.setdefault(name, []).append(figure)
        yield section(name, per, ways)


def cpu_seconds(pid: int) -> float:
    """What a process has taken so far, finer than the ticks of /proc (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def ratios(name: str, way: Way, of: Way) -> list[float]:
    """CPU of each round over that of `of` in the same round."""
    pairs = zip(way.figures[name], of.figures[name], strict=True)
    return [ours.server_cpu / theirs.server_cpu for ours, theirs in pairs]


def section(name: str, per: str, ways: Sequence[Way]) -> str:
    lines = [
        f"### {name}",
        "",
        f"| | CPU s per {per} | ratio | lowest to highest | peak RSS, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for way in ways:
        cpu = median(each.server_cpu / each.amount for each in way.figures[name])
        found = ratios(name, way, ways[0])
        peak = max(each.peak_rss for each in way.figures[name]) / MB
        spread = f"{min(found):.3f} to {max(found):.3f}"
        lines.append(f"| {way.name} | {cpu:.4f} | {median(found):.3f} | {spread} | {peak:.1f} |")
    return "\n".join(lines) + "\n"


def add_options(access: argparse.ArgumentParser) -> None:
    access.add_argument("--rounds", type=int, default=12, metavar="N", help="of each case (default 12)")
    access.add_argument("--quick", action="store_true", help="small sizes, one round: does it work?")
    access.add_argument("--case", action="append", default=[], choices=CASES, help="only this one")
    access.add_argument(
        "--way", action="append", default=[], choices=list(WAYS), help="beside none, only these"
    )
    access.add_argument(
        "--most", type=float, default=5.0, metavar="PERCENT", help="what it may cost (default 5)"
    )
    access.add_argument("--storage-dir", type=Path, help="where the servers write meanwhile")


def run_access(options: argparse.Namespace) -> int:
    """The tables; exit code 1 when a median is above what it may cost."""
    scale, rounds = (QUICK, 1) if options.quick else (Scale(), max(1, options.rounds))
    chosen = [OPEN, *(name for name in WAYS if name != OPEN and (name in options.way or not options.way))]
    for line in this_machine(options.storage_dir or Path(tempfile.gettempdir())).lines():
        print(f"# {line}")
    print(f"# {rounds} rounds, all servers in turn; server and client share the cores\n", flush=True)
    settings = Settings(storage_dir=options.storage_dir)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(Source())
        digests = Digests(source)
        ways = []
        for name in chosen:
            disk = (rounds + 1) * (scale.size + scale.images * MB)
            home = stack.enter_context(case_folder(settings, disk))
            ways.append(Way(name, WAYS[name], home, (source, digests)))
            stack.enter_context(ways[-1].server)
        for text in measure(ways, digests, scale, rounds, options.case):
            print(text, flush=True)
        over = [
            f"{name}, {way.name}: {100 * median(ratios(name, way, ways[0])) - 100:+.1f} %"
            for way in ways[1:]
            for name in way.figures
            if median(ratios(name, way, ways[0])) > 1 + options.most / 100
        ]
    print(f"above {options.most:g} %: {'; '.join(over) or 'nothing'}")
    return int(bool(over))
