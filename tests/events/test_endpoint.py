"""Delivery of webhooks: to a receiver that answers, fails, is slow, or is not there."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from receiver import Receiver

from trioreg.events.cloudevent import cloud_event, read_secret
from trioreg.events.endpoint import Endpoint, EndpointSettings, backoff
from trioreg.events.event import Event
from trioreg.metrics.table import WEBHOOK_EVENTS

ACTIONS = frozenset({"push", "delete"})


def push(tag: str) -> Event:
    return Event(action="push", target="manifest", repository="a/b", tag=tag, digest="sha256:00")


class Waits:
    """Instead of sleeping: remembers for how long, and lets others run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def running(
    url: str, root: Path, settings: EndpointSettings, waits: Waits | None = None
) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(url, root, settings, waits or Waits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.run)
        yield endpoint
        nursery.cancel_scope.cancel()
    endpoint.close()


def counted() -> dict[str, int]:
    return {result: WEBHOOK_EVENTS.total(WEBHOOK_EVENTS.at(result)) for (result,) in WEBHOOK_EVENTS.values}


def counted_since(before: dict[str, int]) -> dict[str, int]:
    return {result: count - before[result] for result, count in counted().items() if count > before[result]}


def dead_letters(root: Path) -> list[str]:
    return [line for file in root.glob("*/dead.jsonl") for line in file.read_text().splitlines()]


def queues(root: Path) -> list[Path]:
    return list(root.glob("*/queue-*"))


async def tell(endpoint: Endpoint, *events: Event) -> None:
    for event in events:
        assert endpoint.offer(event)
        await endpoint.flush()


async def got(receiver: Receiver, count: int) -> list[object]:
    deliveries = await trio.to_thread.run_sync(receiver.wait, count, abandon_on_cancel=True)
    return [delivery.event["data"]["tag"] for delivery in deliveries]


async def until_empty(endpoint: Endpoint) -> None:
    with trio.fail_after(20):
        while endpoint.queued:
            await trio.lowlevel.checkpoint()


async def test_a_delivery_is_a_signed_cloud_event(tmp_path: Path) -> None:
    """Structured mode: the type of the body, the fields of CloudEvents, and a signature anyone can check."""
    settings = EndpointSettings(ACTIONS, secret=b"key")
    with Receiver() as receiver:
        async with running(receiver.url, tmp_path, settings) as endpoint:
            await tell(endpoint, push("v1"))
            await got(receiver, 1)
            await until_empty(endpoint)
        [delivery] = receiver.got
    assert delivery.headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    event = delivery.event
    assert (event["specversion"], event["type"]) == ("1.0", "trioreg.manifest.push")
    assert event["subject"] == "a/b:v1"
    assert event["data"] == {
        "action": "push",
        "target": "manifest",
        "repository": "a/b",
        "tag": "v1",
        "digest": "sha256:00",
    }
    at = delivery.headers["webhook-timestamp"]
    signed = f"{event['id']}.{at}.".encode() + delivery.body
    expected = base64.b64encode(hmac.new(b"key", signed, hashlib.sha256).digest()).decode()
    assert delivery.headers["webhook-signature"] == f"v1,{expected}"
    assert delivery.headers["webhook-id"] == event["id"]


async def test_only_what_was_asked_for(tmp_path: Path) -> None:
    """Blobs are nobody's news, and actions that were not named are not told."""
    endpoint = Endpoint("http://127.0.0.1:9/", tmp_path, EndpointSettings(ACTIONS))
    assert not endpoint.offer(Event(action="pull", target="manifest"))
    assert not endpoint.offer(Event(action="push", target="blob"))
    assert not endpoint.offer(Event(action="denied"))
    endpoint.close()


@pytest.mark.parametrize("answer", [500, 503, 429, 401])
async def test_what_fails_comes_again_in_order(tmp_path: Path, answer: int) -> None:
    """Nothing overtakes what failed, and it comes with the same id."""
    waits = Waits()
    with Receiver(answer, answer) as receiver:
        async with running(receiver.url, tmp_path, EndpointSettings(ACTIONS), waits) as endpoint:
            await tell(endpoint, push("one"), push("two"))
            assert await got(receiver, 4) == ["one", "one", "one", "two"]
            await until_empty(endpoint)
        ids = [delivery.event["id"] for delivery in receiver.got]
    assert len(set(ids)) == 2
    assert len(waits.seconds) == 2
    assert 0.5 <= waits.seconds[0] <= 1 <= waits.seconds[1] <= 2


@pytest.mark.parametrize("answers", [(400,), (302,), (500, 500, 500)])
async def test_what_will_never_be_taken_is_kept_for_people(tmp_path: Path, answers: tuple[int, ...]) -> None:
    """A final answer, or the last attempt: the event is in dead.jsonl and the next one goes on."""
    before = counted()
    with Receiver(*answers) as receiver:
        async with running(receiver.url, tmp_path, EndpointSettings(ACTIONS, attempts=3)) as endpoint:
            await tell(endpoint, push("bad"), push("good"))
            tags = await got(receiver, len(answers) + 1)
            assert tags == ["bad"] * len(answers) + ["good"]
            await until_empty(endpoint)
            assert (endpoint.dead, endpoint.delivered) == (1, 1)
    retried = {"retried": len(answers) - 1} if len(answers) > 1 else {}
    assert counted_since(before) == {"queued": 2, "delivered": 1, "dead": 1, **retried}
    [line] = dead_letters(tmp_path)
    dead = json.loads(line)
    assert (dead["reason"], dead["attempts"]) == (str(answers[-1]), len(answers))
    assert dead["event"]["data"]["tag"] == "bad"


async def test_a_silent_receiver_is_not_waited_for(tmp_path: Path) -> None:
    """It has its time, then it is an attempt that failed; the queue takes events all the while."""
    waits = Waits()
    with Receiver(None) as receiver:
        async with running(
            receiver.url, tmp_path, EndpointSettings(ACTIONS, timeout=0.05), waits
        ) as endpoint:
            await tell(endpoint, push("one"), push("two"))
            assert await got(receiver, 3) == ["one", "one", "two"]
            await until_empty(endpoint)
    assert len(waits.seconds) == 1


async def test_one_that_is_not_there_gets_it_later(tmp_path: Path) -> None:
    """Also from another process: what one had not delivered, the next one takes over."""
    with Receiver() as gone:
        pass
    async with running(gone.url, tmp_path, EndpointSettings(ACTIONS), Stuck()) as endpoint:
        await tell(endpoint, push("one"), push("two"))
    with Receiver(port=gone.port) as receiver:
        async with running(gone.url, tmp_path, EndpointSettings(ACTIONS)) as endpoint:
            assert await got(receiver, 2) == ["one", "two"]
            await until_empty(endpoint)
    assert queues(tmp_path) == []


class Stuck(Waits):
    async def __call__(self, seconds: float) -> None:
        await trio.sleep_forever()


async def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """What does not fit is counted; what is in there stays, and counts for the next process as well."""
    one = len(cloud_event(push("1"))) + 1
    settings, before = EndpointSettings(ACTIONS, queue_bytes=3 * one), counted()
    endpoint = Endpoint("http://127.0.0.1:9/", tmp_path, settings)
    await tell(endpoint, push("1"), push("2"), push("3"))
    assert not endpoint.offer(push("4"))
    assert endpoint.refused == 1
    second = Endpoint("http://127.0.0.1:9/", tmp_path, settings)
    second._look_for_orphans()
    assert not second.offer(push("5"))
    assert counted_since(before) == {"queued": 3, "lost": 2}
    second.close()
    endpoint.close()


def test_delays_grow_and_are_bounded() -> None:
    """Doubling from a second to five minutes, shortened by up to half."""
    for failures, longest in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10_000, 300)):
        for _ in range(20):
            assert longest / 2 <= backoff(failures) <= longest


def test_secrets() -> None:
    """Plain text, or the form of Standard Webhooks."""
    assert read_secret("abc\n") == b"abc"
    assert read_secret("whsec_" + base64.b64encode(b"\0\1").decode()) == b"\0\1"
    with pytest.raises(ValueError, match="not base64"):
        read_secret("whsec_!")
