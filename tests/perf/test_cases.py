"""The table of cases, its arithmetic, and that a failure is seen as one."""

import json
from pathlib import Path

import pytest
import trio

from perf.__main__ import exit_code, main
from perf.bodies import Body, Digests, Source
from perf.cases import BATCH_CLIENTS, BATCH_EACH, CASES, Scale, slope
from perf.client import Load
from perf.plan import MB, Group, Kind, Message, Plan, Progress, decode_message, decode_plan, encode, size
from perf.report import json_line, table
from perf.run import CaseFailed, Outcome, Settings, case_folder
from perf.sampling import Sample

PROMISED = {  # the issues' own words, in MB; that idle connections have a bound, and ours
    "idle": 50,
    "one-upload": 50,
    "one-huge-upload": 100,
    "uploads": 500,
    "slow-disk": 500,
    "dribblers": 500,
    "slow-uploads": 250,
    "idle-connections": 250,
    "churn": 3,
    "pulls-40": 200,
    "pulls-100": 200,
}


def test_limits_are_the_promised_ones() -> None:
    """A limit is changed here and in the table, or not at all; an aim is below its limit."""
    assert {case.name: case.limit // MB for case in CASES} == PROMISED
    assert all(case.aim is None or case.aim < case.limit for case in CASES)
    assert {case.name for case in CASES if case.large} == {
        "one-huge-upload",
        "slow-uploads",
        "idle-connections",
    }


def test_no_case_takes_more_disk_than_is_decent() -> None:
    """Without options at most 30 GB at once; a batch of the mix is a thousand operations."""
    assert max(case.disk(Scale()) for case in CASES) < 30_000 * MB
    assert BATCH_CLIENTS * BATCH_EACH == 1000
    assert BATCH_EACH % 10 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("64MB", 64 * MB), ("1GiB", 1 << 30), ("256kib", 256 << 10), ("2GB", 2000 * MB)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "1.5GB", "3 parsecs", "-1"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        size(text)


def test_slope_is_growth_per_step() -> None:
    assert slope([100, 103, 106, 109]) == pytest.approx(3)
    assert slope([100, 100, 100, 100]) == 0
    assert slope([109, 106, 103, 100]) == pytest.approx(-3)
    assert slope([100, 108, 100, 109, 107, 101, 100, 108]) < 1, "what is not given back yet is no leak"


def test_plans_and_messages_travel_as_lines() -> None:
    plan = Plan("127.0.0.1", 5000, [Group("a", Kind.MIXED, clients=3, each=10)], 60.0)
    assert encode(plan).count(b"\n") == 1
    assert decode_plan(encode(plan)) == plan
    message = Message(progress=Progress(1, 2, 3))
    assert decode_message(encode(message)) == message


def test_verdicts() -> None:
    """Over the limit is over, at the limit is not, without one nothing is; failures come first."""
    outcome = Outcome("x", held=50, limit=50, peak=Sample(rss=50))
    assert outcome.verdict == "ok"
    outcome.held = 51
    assert (outcome.verdict, outcome.over_limit) == ("OVER", True)
    assert exit_code([Outcome("peer", held=10**9), outcome]) == 1
    outcome.failures.append("a push failed")
    assert outcome.verdict == "FAILED"
    assert "a push failed" in table([outcome])
    assert json.loads(json_line(outcome))["verdict"] == "FAILED"
    assert exit_code([outcome]) == 1
    assert exit_code([Outcome("peer", held=10**9), Outcome("x", skipped="why")]) == 0


def test_a_case_without_a_figure_is_not_ok() -> None:
    """A limit that nothing was held against has not been kept."""
    assert Outcome("x", limit=50).verdict == "FAILED"


def test_a_full_disk_is_said_before_the_case(tmp_path: Path) -> None:
    settings = Settings(storage_dir=tmp_path)
    with pytest.raises(CaseFailed, match="free"), case_folder(settings, 10**18):
        pass
    with case_folder(settings, 0) as home:
        assert home.is_dir()
    assert not home.exists()


def test_unknown_case_is_a_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "--case", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


ACCEPTED = b"HTTP/1.1 202 Accepted\r\nLocation: /u\r\nContent-Length: 0\r\n\r\n"
BODY = Body("g/10/0", 10)  # what operation 0 of group g pushes
CREATED = b"HTTP/1.1 201 Created\r\nDocker-Content-Digest: sha256:0\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nwhy?"], "500 where (202,) was due: why?"),
        ([ACCEPTED, ACCEPTED], "202 where (201,) was due"),
        ([ACCEPTED, CREATED], "201 for digest 'sha256:0'"),
        ([ACCEPTED], "hung up"),
        ([], "hung up"),
    ],
)
async def test_a_wrong_answer_is_a_failed_push(replies: list[bytes], why: str) -> None:
    """An error, a wrong status, another digest or silence in place of the 201: a failure each."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            for turn in range(len(replies) + 1):  # the request after the last reply gets none
                end = BODY.end() if turn else b"\r\n\r\n"
                received = b""
                while not received.endswith(end):
                    part = await stream.receive_some()
                    if not part:
                        return
                    received += part
                if turn < len(replies):
                    await stream.send_all(replies[turn])

    with Source() as source, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
            port = listeners[0].socket.getsockname()[1]
            plan = Plan("127.0.0.1", port, [Group("g", Kind.PUSH, size=BODY.size)], 5.0)
            load = Load(plan, source, Digests(source))
            await load.run()
            nursery.cancel_scope.cancel()
    tally = load.groups["g"].tally
    assert (tally.done, tally.failed) == (0, 1)
    assert why in tally.problems[0]
