"""The speed benchmark's parts that need no registry: options, HTTP, wrk's words, the tables."""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from perf.__main__ import main, parser
from perf.attempt import Figure, busy
from perf.bodies import Body, Source, frame
from perf.contenders import Contender, installed_peers, ours, peer, twice, variant
from perf.lean import PAUSE, Line, Reply, Steps, drive, must_be, out_of_chunks, request
from perf.measures import QUICK, REQUESTS, SPEED, Measure, Scale, Unit
from perf.plan import MB
from perf.sampling import TICKS
from perf.speed import CASES
from perf.standings import Standing, counted, document, json_line, markdown_table, rounded, section, targets
from perf.wire import Refused
from perf.wrk import by_own_loop
from perf.wrk import counted as requests_of

AIMS = {  # the issue's own words
    "push-1": 1.7,
    "push-40": 3,
    "push-100": 3,
    "pull-1": 1,
    "pull-40": 1,
    "manifest-get": 1,
    "manifest-head": 1,
    "blob-get": 1,
    "images-push": 1.5,
}


def test_aims_are_the_promised_ones() -> None:
    """An aim is changed here and in the table, or not at all; no two measures share a name."""
    measures = [measure for case in CASES for measure in case.measures]
    assert {measure.name: measure.target for measure in measures if measure.target} == AIMS
    assert len({measure.name for measure in measures}) == len(measures)
    assert len({case.name for case in CASES}) == len(CASES)


def test_no_case_takes_more_disk_than_is_decent() -> None:
    """One server's storage at a time: 4 GB, a tenth of it with --quick."""
    assert max(case.disk(Scale()) for case in CASES) <= 4000 * MB
    assert max(case.disk(QUICK) for case in CASES) <= 500 * MB


# Who takes part.


def test_ours_is_durable_by_default_and_the_other_only_pushes() -> None:
    """Settings of the call reach every one of ours, a variant's own come last, none logs requests."""
    all_of_ours = ours([("memory.budget", "32MiB")], [variant("quart:http.front=quart,memory.budget=1GiB")])
    durable, unsynced, quart = all_of_ours
    assert (durable.name, durable.settings["storage.durability"], durable.pushes_only) == (
        "trioreg",
        "full",
        False,
    )
    assert (unsynced.settings["storage.durability"], unsynced.pushes_only) == ("none", True)
    assert quart.environment["TRIOREG_HTTP_FRONT"] == "quart"
    assert [one.settings["memory.budget"] for one in all_of_ours] == ["32MiB", "32MiB", "1GiB"]
    assert all(one.environment["TRIOREG_LOG_ACCESS"] == "false" for one in all_of_ours)


@pytest.mark.parametrize("text", ["", "name", "name:", ":a=b", "name:setting", "name:a=b,c"])
def test_no_variants(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:SETTING"):
        variant(text)


def test_a_peer_is_a_name_and_a_command_with_both_places() -> None:
    found = peer("zot=/opt/zot serve --port {port} --root={storage}")
    assert (found.name, found.ours) == ("zot", False)
    assert found.line() == "zot: zot serve --port {port} --root={storage}"
    for text in ("zot", "=x {port} {storage}", "zot=x {port}", "zot=x {storage}"):
        with pytest.raises(ValueError, match="NAME=COMMAND"):
            peer(text)
    assert twice([found, Contender("other", "x"), found]) == ["zot"]


def test_the_peer_on_path_gets_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by name alone; without it there is no peer, and no file."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert installed_peers(tmp_path) == []
    program = tmp_path / "docker-registry"
    program.write_text("#!/bin/sh\necho docker-registry of somebody 9.9\n")
    program.chmod(0o755)
    (found,) = installed_peers(tmp_path)
    assert found.name == "docker-registry 9.9"
    assert "{port}" in found.command and "{storage}" in found.command
    assert "delete: {enabled: true}" in (tmp_path / "docker-registry.yml").read_text()


@pytest.mark.parametrize("options", [["--case", "nonsense"], ["--no-found-peers", "--ours", "no sync:a=b"]])
def test_wrong_options(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A case that is not there, a name that is taken."""
    assert main(["speed", *options]) == 2
    assert options[-1].partition(":")[0] in capsys.readouterr().err


def test_options_that_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--peer", "x"], ["--set", "x"], ["--ours", "x"], ["--runs", "0"]):
        with pytest.raises(SystemExit, match="2"):
            parser().parse_args(["speed", *options])
        assert options[0] in capsys.readouterr().err


# HTTP.


def test_a_request_announces_its_body_as_it_is_sent() -> None:
    assert request("GET", "/v2/").endswith(b"\r\n\r\n") and b"Length" not in request("GET", "/v2/")
    assert b"Content-Length: 0\r\n" in request("POST", "/p")
    assert request("PUT", "/p", ["A: b"], b"body").endswith(b"A: b\r\nContent-Length: 4\r\n\r\nbody")
    assert b"Content-Length: 7\r\n" in request("PATCH", "/p", length=7)
    chunked = request("PATCH", "/p", length=-1)
    assert b"Transfer-Encoding: chunked" in chunked and b"Length" not in chunked


def test_chunks_are_joined_only_when_all_are_there() -> None:
    whole = frame(b"ab") + b"3;name=value\r\ncde\r\n" + b"0\r\n\r\n"
    assert out_of_chunks(whole) == b"abcde"
    assert all(out_of_chunks(whole[:size]) is None for size in range(len(whole)))


def test_headers_of_a_reply() -> None:
    """Names in any case, an absolute location without its host."""
    reply = Reply(202, "HTTP/1.1 202 Accepted\r\nLOCATION:  http://host:1/v2/u?a=b \r\nX-Location: /no")
    assert reply.location == "/v2/u?a=b"
    assert reply.header("content-length") == ""
    assert must_be(reply, 201, 202) is reply
    with pytest.raises(Refused, match="202 where"):
        must_be(reply, 201)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
BODY = Body("blob", 100_000)


async def against(serve: Callable[[bytes], bytes], clients: Callable[[int], Sequence[Steps[None]]]) -> int:
    """Drive clients against a server that answers each head; how many connections it took."""
    connections = 0

    async def connection(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    try:
                        part = await stream.receive_some()
                    except trio.BrokenResourceError:
                        return
                    if not part:
                        return
                    head += part
                reply = serve(head)
                try:
                    await stream.send_all(reply)
                except trio.BrokenResourceError:
                    return
                if b"Connection: close" in reply or not reply:
                    return

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, connection, 0)
            port = listeners[0].socket.getsockname()[1]
            await trio.to_thread.run_sync(lambda: drive(clients(port), 5.0))
            nursery.cancel_scope.cancel()
    return connections


@pytest.mark.parametrize(("reply", "connections"), [(OK, 2), (CHUNKED, 2), (LAST, 6)])
async def test_connections_are_kept_and_opened_again(reply: bytes, connections: int) -> None:
    """Two clients ask three times each: over two connections, or six when each is closed."""
    bodies: list[bytes] = []

    def client(port: int) -> Steps[None]:
        with Line(port) as line:
            for _ in range(3):
                bodies.append((yield from line.ask(request("GET", "/"), 200)).body)
                yield PAUSE, 0.0

    assert await against(lambda head: reply, lambda port: [client(port), client(port)]) == connections
    assert bodies == [b"ok"] * 6


def always(reply: bytes, head: bytes) -> bytes:
    return reply


def blob_reply(size: int, content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + content


async def test_a_pull_reads_all_of_the_blob() -> None:
    content = bytes(BODY.bulk) + BODY.end()

    def client(port: int) -> Steps[None]:
        with Line(port) as line:
            for _ in range(2):
                yield from line.download(request("GET", "/"), BODY.size, BODY.end())

    assert await against(lambda head: blob_reply(BODY.size, content), lambda port: [client(port)]) == 1


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404 where"),
        (blob_reply(BODY.size - 1, bytes(BODY.size - 1)), "Content-Length '99999'"),
        (blob_reply(BODY.size, bytes(BODY.size)), "other bytes"),
        (blob_reply(BODY.size, b"some\r\nConnection: close"), "hung up with"),
    ],
)
async def test_a_wrong_blob_is_no_pull(reply: bytes, why: str) -> None:
    """Another status, length or end, or fewer bytes than announced."""

    def client(port: int) -> Steps[None]:
        with Line(port) as line:
            yield from line.download(request("GET", "/"), BODY.size, BODY.end())

    with pytest.raises(BaseException) as caught:  # noqa: PT011  a nursery wraps it
        await against(lambda head: reply, lambda port: [client(port)])
    (found,) = leaves(caught.value)
    assert isinstance(found, Refused) and why in str(found)


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for member in error.exceptions for leaf in leaves(member)]
    return [error]


async def test_an_upload_that_is_answered_early_is_not_sent_on() -> None:
    """The status is what counts: a 201 before the end is as wrong as a 500."""
    body = Body("large", 50 * MB)

    def client(port: int, source: Source, reason: list[str]) -> Steps[None]:
        with Line(port) as line:
            head = request("PUT", "/", length=body.size)
            with pytest.raises(Refused) as caught:
                yield from line.upload(head, source.wire(body, chunked=False), 201)
            reason.append(str(caught.value))

    reasons: list[str] = []
    replies = [b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status for status in (500, 201)]
    with Source() as source:
        for reply in replies:
            answer: Callable[[bytes], bytes] = partial(always, reply)
            await against(answer, lambda port: [client(port, source, reasons)])
    assert "500 where (201,)" in reasons[0] and "201 after" in reasons[1]


async def test_own_loop_counts_what_was_answered() -> None:
    answered = 0

    def serve(head: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return OK

    found: list[tuple[int, float]] = []

    def ask(port: int) -> Sequence[Steps[None]]:
        found.append(by_own_loop(request("GET", "/"), port, connections=2, seconds=0.02))
        return []

    await against(serve, ask)
    assert found[0][0] == answered > 0


def test_silence_ends_with_the_time_given() -> None:
    def waits() -> Steps[None]:
        yield PAUSE, 3600.0

    with pytest.raises(Refused, match="not through"):
        drive([waits()], 0.01)


WRK = """Running 1s test @ http://127.0.0.1:1/v2/
  1 threads and 8 connections
    Req/Sec    23.69k     5.39k   31.24k    70.00%
  23532 requests in 1.50s, 6.40MB read
"""


def test_words_of_wrk() -> None:
    assert requests_of(WRK) == (23532, 1.5)
    assert requests_of(WRK.replace("1.50s", "2.00m")) == (23532, 120.0)
    for trouble in ("  Non-2xx or 3xx responses: 7\n", "  Socket errors: connect 0, read 1\n"):
        with pytest.raises(Refused, match=trouble.strip()[:7]):
            requests_of(WRK + trouble)
    with pytest.raises(Refused, match="said"):
        requests_of("nothing")


# What is printed.

TWO_PEERS = [Contender("trioreg"), Contender("slow", "x"), Contender("fast", "x"), Contender("none", "x")]
LESS = Unit("KB", 1e3, less_is_better=True)


def standing(unit: Unit, target: float = 0.0) -> Standing:
    found = Standing.of(Measure("m", lambda scale: "title", unit, target), TWO_PEERS)
    for name, values in {"trioreg": (3e8, 6e8, 4e8), "slow": (1e8,), "fast": (2e8, 1.5e8, 2.5e8)}.items():
        found.entry(name).figures = [Figure(value, 2.0, 3.0, 5.0, 1.0, 40 * MB) for value in values]
    return found


def test_ratio_is_to_the_best_peer() -> None:
    """By medians, larger is better also where less is; none without a figure or without peers."""
    more, less = standing(SPEED), standing(LESS)
    assert [more.ratio(entry) for entry in more.entries] == [2.0, 0.5, 1.0, None]
    assert [less.ratio(entry) for entry in less.entries] == [0.25, 1.0, 0.5, None]
    alone = Standing.of(more.measure, TWO_PEERS[:1])
    alone.entries[0].figures = more.entries[0].figures
    assert alone.best_peer is None and alone.ratio(alone.entries[0]) is None


def test_a_table_has_everyone_and_every_remark() -> None:
    """Median, spread, ratio, CPU per unit, RSS, the client's CPU; who has no figure has a row too."""
    found = standing(SPEED, target=3.0)
    found.remarks += ["none: no figure: refused"] * 2
    text = section(found, Scale())
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    cells = [cell.strip() for cell in rows["trioreg"].split("|")[2:-1]]
    assert cells == ["400", "300–600", "2.00", "2.5", "40", "1.00", "3.00"]
    assert set(rows["none"]) <= set("| none–")
    assert "- none: no figure: refused (2 times)" in text
    assert "aim: 3 ×" in text


def test_a_disturbed_run_is_said_to_be_one() -> None:
    """More than a quarter of a core that went to neither server nor client."""
    found = standing(SPEED)
    assert "cores were busy" not in section(found, Scale())
    found.entry("slow").figures.append(Figure(1e8, 2.0, seconds=3.0, other_cpu=1.5))
    assert "- slow: beside it, neither server nor client, 0.0 to 0.5 cores were busy" in section(
        found, Scale()
    )


def test_busy_is_all_but_idle_and_waiting() -> None:
    stat = "cpu  100 200 300 4000 5000 10 20 30 7 8\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert busy(stat) == pytest.approx(660 / TICKS)


def test_aims_are_judged_by_the_first_of_ours() -> None:
    assert "| no" in targets([standing(SPEED, target=3.0)], Scale()).splitlines()[-1].replace("  ", " ")
    assert "yes |" in targets([standing(SPEED, target=2.0)], Scale())
    assert targets([standing(SPEED)], Scale()) == ""


def test_json_has_every_run_in_base_units() -> None:
    found = json.loads(json_line(standing(REQUESTS), QUICK))
    assert found["servers"]["trioreg"]["median"] == 4e8
    assert [run["value"] for run in found["servers"]["fast"]["runs"]] == [2e8, 1.5e8, 2.5e8]
    assert found["servers"]["none"] == {"ours": False, "median": None, "ratio_to_best_peer": None, "runs": []}


def test_the_page_says_where_and_how() -> None:
    page = document(["a machine"], ["### one", "### two"], "", runs=3, cores=2)
    assert page.startswith("- a machine\n\n")
    assert "median of 3 runs" in page and "share 2 cores" in page
    assert page.endswith("### one\n\n### two\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0815, "0.0815"), (46.72, "46.7"), (312.4, "312"), (21095.3, "21,095"), (-0.5, "-0.5")],
)
def test_three_digits(value: float, text: str) -> None:
    assert rounded(value) == text


def test_remarks_are_counted_and_columns_aligned() -> None:
    assert counted(["a", "b", "a"]) == ["a (2 times)", "b"]
    lines = markdown_table(["", "long heading"], [["name", "1"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("-: |")


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_a_version_that_cannot_be_asked_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-registry"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = installed_peers(tmp_path)
    assert found.name == "docker-registry"
