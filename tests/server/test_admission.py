"""Admission over a socket: 429 before a byte of a body is asked for, and never in the middle of one.

All clients of a test have one address; who they are is said by the name of their user.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from inprocess import FRONTS, KIB, MIB, Answer, Client, InProcess, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.api.clients import address_of
from trioreg.auth.authorizer import AllowAll
from trioreg.auth.identity import Identity
from trioreg.oci.digest import digest_of
from trioreg.pipeline.admission import AdmissionLimits
from trioreg.storage.memory import MemoryStorage

NAME = "some/name"
UPLOADS = f"/v2/{NAME}/blobs/uploads/"
SETTLED = 0.05
on_both_fronts = pytest.mark.parametrize("front", FRONTS)


class ByName(AllowAll):
    """Believes what the client says, for what is tested here is not who it is."""

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        return Identity(authorization) if authorization else None


@asynccontextmanager
async def registry(
    front: str, places: int, *, queue: int = 0, wait: float = 0.0, each: int = 0, blocks: int = 16
) -> AsyncIterator[InProcess]:
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front, blocks=blocks, authorizer=ByName()) as server:
            server.service.admission.limits = AdmissionLimits(places, queue, wait, each)
            yield server


def check_refused(answer: Answer) -> None:
    assert answer.status == 429, answer
    assert int(answer.headers["retry-after"]) >= 1
    assert json.loads(answer.body)["errors"][0]["code"] == "TOOMANYREQUESTS"


async def begin(client: Client, location: str, length: int = MIB) -> None:
    """The head of a chunk, and its first bytes."""
    await client.send_head("PATCH", location, {"Content-Length": str(length)})
    await client.send(bytes(KIB))
    await wait_all_tasks_blocked(SETTLED)


@on_both_fronts
async def test_refused_at_post(front: str) -> None:
    """A push that finds no place is told so before it has begun, and gets through later."""
    async with registry(front, 1) as server:
        location = await server.start_upload()
        check_refused(await server.request("POST", UPLOADS))
        assert (await server.request("PATCH", location, b"hello")).status == 202
        check_refused(await server.request("POST", UPLOADS))
        digest = digest_of(b"hello")
        assert (await server.request("PUT", f"{location}?digest={digest}")).status == 201
        assert (await server.request("POST", UPLOADS)).status == 202


@on_both_fronts
async def test_a_whole_blob_in_one_request(front: str) -> None:
    """end-4b brings its body with the POST: refused unread, and let in when there is a place."""
    async with registry(front, 1) as server:
        location = await server.start_upload()
        target = f"{UPLOADS}?digest={digest_of(b'hello')}"
        check_refused(await server.request("POST", target, b"hello"))
        await server.request("DELETE", location)
        assert (await server.request("POST", target, b"hello")).status == 201
        assert server.service.admission.statistics().held == 0


@on_both_fronts
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_session_that_goes_on_later(front: str, method: str) -> None:
    """Its place went to another: 429, nothing of the body counts, and the session is where it was."""
    async with registry(front, 1) as server:
        location = await server.start_upload()
        assert (await server.request("PATCH", location, b"hello")).status == 202
        server.service.admission.drop(location.rpartition("/")[2])
        async with server.connect() as other:
            await begin(other, await server.start_upload())
            target = location if method == "PATCH" else f"{location}?digest={digest_of(b'hello world')}"
            check_refused(await server.request(method, target, b" world"))
        with trio.fail_after(10):
            while server.service.admission.statistics().held:
                await wait_all_tasks_blocked(SETTLED)
        assert (await server.request("GET", location)).headers["range"] == "0-4"
        assert (await server.request(method, target, b" world")).status in (201, 202)


async def test_no_continue_before_a_place() -> None:
    """A client that asks first is answered before it has sent anything. (Hypercorn says it at once.)"""
    async with registry("direct", 1) as server:
        location = await server.start_upload()
        server.service.admission.drop(location.rpartition("/")[2])
        async with server.connect() as other, server.connect() as client:
            await begin(other, await server.start_upload())
            await client.send_head("PATCH", location, {"Content-Length": "5", "Expect": "100-continue"})
            check_refused(await client.answer())


@on_both_fronts
async def test_what_ends_a_session_needs_no_place(front: str) -> None:
    """With all places taken a push can still be finished, asked for and cancelled, and a blob mounted."""
    async with registry(front, 3) as server:
        digest = digest_of(b"hello")
        first, second = await server.start_upload(), await server.start_upload()
        await server.request("PATCH", first, b"hello")
        async with server.connect() as one, server.connect() as another:
            await begin(one, await server.start_upload())
            server.service.admission.drop(second.rpartition("/")[2])
            await begin(another, await server.start_upload())
            check_refused(await server.request("POST", UPLOADS))
            assert (await server.request("GET", second)).status == 204
            assert (await server.request("DELETE", second)).status == 204
            assert (await server.request("PUT", f"{first}?digest={digest}")).status == 201
            mount = f"/v2/other/blobs/uploads/?mount={digest}&from={NAME}"
            assert (await server.request("POST", mount)).status == 201


@on_both_fronts
async def test_waiting_for_a_place(front: str) -> None:
    """A POST that has to wait is answered as soon as another push has ended."""
    async with registry(front, 1, queue=1, wait=20) as server:
        location = await server.start_upload()
        answers: list[Answer] = []

        async def post() -> None:
            answers.append(await server.request("POST", UPLOADS))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post)
            while not server.service.admission.statistics().waiting:
                await wait_all_tasks_blocked(SETTLED)
            check_refused(await server.request("POST", UPLOADS))
            await server.request("DELETE", location)
        assert [answer.status for answer in answers] == [202]


@on_both_fronts
async def test_dribblers_do_not_starve_a_fast_client(front: str) -> None:
    """One identity takes every place that it may have and dribbles; another one pushes as before."""
    async with registry(front, 20, blocks=4) as server, trio.open_nursery() as nursery:
        slow, fast = {"Authorization": "slow"}, {"Authorization": "fast"}
        dribbling: list[str] = []

        async def dribble(location: str) -> None:
            async with server.connect() as client:
                await client.send_head("PATCH", location, {"Content-Length": str(MIB), **slow})
                await client.send(bytes(KIB))
                dribbling.append(location)
                await trio.sleep_forever()

        while (answer := await server.request("POST", UPLOADS, headers=slow)).status == 202:
            nursery.start_soon(dribble, answer.headers["location"])
        check_refused(answer)
        while len(dribbling) < server.service.admission.statistics().held:
            await wait_all_tasks_blocked(SETTLED)
        assert len(dribbling) == 18
        for number in range(3):
            blob = bytes([number]) * MIB
            answer = await server.request("POST", UPLOADS, headers=fast)
            target = f"{answer.headers['location']}?digest={digest_of(blob)}"
            assert (await server.request("PUT", target, blob, fast)).status == 201
        nursery.cancel_scope.cancel()


@on_both_fronts
async def test_blocks_are_asked_for_in_the_name_of_the_client(front: str) -> None:
    """So that in the budget too one of each has its turn."""
    async with registry(front, 20, blocks=1) as server, trio.open_nursery() as nursery:
        taken = await server.budget.acquire()
        answers: list[int] = []

        async def push(who: dict[str, str]) -> None:
            answer = await server.request("POST", UPLOADS, headers=who)
            location = answer.headers["location"]
            answers.append((await server.request("PATCH", location, bytes(KIB), who)).status)

        for who in ({"Authorization": "ann"}, {"Authorization": "ann"}, {"Authorization": "ben"}):
            nursery.start_soon(push, who)
        while server.budget.statistics().waiting < 3:
            await wait_all_tasks_blocked(SETTLED)
        waiting = server.budget._waiting._queues
        assert {client: len(queue) for client, queue in waiting.items()} == {
            "identity ann": 2,
            "identity ben": 1,
        }
        server.budget.release(taken)
    assert answers == [202] * 3


async def test_what_metrics_show() -> None:
    """Places there are, those for a body and those kept, and refusals."""
    async with registry("direct", 4) as server, server.connect() as client:
        locations = [await server.start_upload() for _ in range(3)]
        await begin(client, locations[0])
        await server.start_upload()
        check_refused(await server.request("POST", UPLOADS))
        lines = (await server.request("GET", "/metrics")).body.decode().splitlines()
        shown = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert shown["trioreg_admission_places"] == "4"
        assert shown['trioreg_admission_held_places{use="body"}'] == "1"
        assert shown['trioreg_admission_held_places{use="kept"}'] == "3"
        assert shown["trioreg_admission_waiting"] == "0"
        assert int(shown['trioreg_limits_refused_total{limit="admission"}']) >= 1


@on_both_fronts
async def test_uploads_of_one_identity(front: str) -> None:
    """Its limit is its own, whatever address it comes from."""
    async with registry(front, 20, each=2) as server:
        ann, ben = {"Authorization": "ann"}, {"Authorization": "ben"}
        for _ in range(2):
            assert (await server.request("POST", UPLOADS, headers=ann)).status == 202
        check_refused(await server.request("POST", UPLOADS, headers=ann))
        assert (await server.request("POST", UPLOADS, headers=ben)).status == 202
        assert (await server.request("POST", UPLOADS)).status == 202


@pytest.mark.parametrize(
    ("peer", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_counts_as(peer: str, counts_as: str) -> None:
    """A host has a whole /64 of IPv6; with each address of its own it would have any number of places."""
    assert address_of(peer) == counts_as
