"""Places for uploads: never more than there are, none for one client alone, turns for those who wait."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.admission import GREED, KEPT_SECONDS, Admission, AdmissionLimits, Places, places_for


def admission(places: int, queue: int = 100, wait: float = 10.0, each: int = 0) -> Admission:
    return Admission(AdmissionLimits(places, queue, wait, each))


class Uploads:
    """Uploads that hold their place until they are told to end, and the order in which they came in."""

    def __init__(self, at: Admission) -> None:
        self.at = at
        self.inside: list[str] = []
        self.refused: list[str] = []
        self._ends: dict[str, trio.Event] = {}

    async def run(self, client: str, name: str) -> None:
        self._ends[name] = trio.Event()
        try:
            async with self.at.place(client):
                self.inside.append(name)
                await self._ends[name].wait()
        except RegistryError:
            self.refused.append(name)

    def end(self, name: str) -> None:
        self._ends[name].set()

    def end_all(self) -> None:
        for each in self._ends.values():
            each.set()


@pytest.mark.parametrize(("total", "alone"), [(1, 1), (2, 2), (10, 9), (128, 114), (1280, 1138)])
def test_one_client_alone_gets_nearly_all(total: int, alone: int) -> None:
    """And of so few that a part of one would be left, all."""
    places = Places(total)
    while places.may("a"):
        places.take("a")
    assert places.taken == alone
    assert alone > total * GREED / (GREED + 1) - 1


def test_a_thousand_slow_uploads_of_one_address_fit_the_default() -> None:
    """The default budget has 160 blocks."""
    places = Places(places_for(40 * 2**20))
    for _ in range(1000):
        assert places.may("a")
        places.take("a")


@pytest.mark.parametrize("greedy", [1, 2, 3, 10, 50])
def test_something_is_left_for_the_next(greedy: int) -> None:
    """However many clients take what they may get, another one still gets a place, and the sum is right."""
    places = Places(1280)
    for turn in range(greedy * 1280):
        client = f"greedy{turn % greedy}"
        if places.may(client):
            places.take(client)
    assert not any(places.may(f"greedy{number}") for number in range(greedy))
    assert places.total - places.taken >= 1280 // (GREED * greedy + 1)
    assert places.may("another")
    places.take("another")
    places.give("another")
    assert places.clients == greedy


async def test_never_more_than_there_are(nursery: trio.Nursery) -> None:
    """The others wait, and come in as soon as one has left."""
    uploads = Uploads(admission(3))
    for number in range(5):
        nursery.start_soon(uploads.run, f"client{number}", f"{number}")
        await wait_all_tasks_blocked()
    assert uploads.inside == ["0", "1", "2"]
    assert uploads.at.statistics().waiting == 2
    uploads.end("1")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["0", "1", "2", "3"]
    uploads.end_all()
    await wait_all_tasks_blocked()
    statistics = uploads.at.statistics()
    assert (statistics.held, statistics.waiting, statistics.clients) == (0, 0, 0)
    assert (statistics.admitted, statistics.refused) == (5, 0)


async def test_clients_have_their_turn_however_many_uploads_they_have(nursery: trio.Nursery) -> None:
    """Twenty that stood in line first do not keep another client's one waiting for all of them."""
    uploads = Uploads(admission(1))
    nursery.start_soon(uploads.run, "first", "first")
    await wait_all_tasks_blocked()
    for number in range(20):
        nursery.start_soon(uploads.run, "many", f"many{number}")
        await wait_all_tasks_blocked()
    nursery.start_soon(uploads.run, "one", "one")
    await wait_all_tasks_blocked()
    for _ in range(3):
        uploads.end(uploads.inside[-1])
        await wait_all_tasks_blocked()
    assert uploads.inside == ["first", "many0", "one", "many1"]
    nursery.cancel_scope.cancel()


async def test_a_limit_for_each_client(nursery: trio.Nursery) -> None:
    """Who has as many as one may have waits for one of its own; others do not wait for it."""
    uploads = Uploads(admission(100, each=2))
    for number in range(3):
        nursery.start_soon(uploads.run, "a", f"a{number}")
        await wait_all_tasks_blocked()
    nursery.start_soon(uploads.run, "b", "b")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a0", "a1", "b"]
    uploads.end("b")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a0", "a1", "b"]
    uploads.end("a0")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a0", "a1", "b", "a2"]
    nursery.cancel_scope.cancel()


async def test_the_queue_is_bounded(nursery: trio.Nursery) -> None:
    """Who finds it full is refused at once; and one client cannot fill it alone."""
    uploads = Uploads(admission(1, queue=10))
    for number in range(12):
        nursery.start_soon(uploads.run, "a", f"a{number}")
        await wait_all_tasks_blocked()
    assert uploads.refused == ["a10", "a11"]
    nursery.start_soon(uploads.run, "b", "b0")
    nursery.start_soon(uploads.run, "b", "b1")
    await wait_all_tasks_blocked()
    assert len(uploads.refused) == 3
    assert uploads.at.statistics().waiting == 10
    nursery.cancel_scope.cancel()


async def test_waiting_ends(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """After `wait` seconds the answer is 429, with the time to wait; and nothing of it is left."""
    at = admission(1, wait=7.5)
    uploads = Uploads(at)
    nursery.start_soon(uploads.run, "a", "a")
    await wait_all_tasks_blocked()
    began = trio.current_time()
    with pytest.raises(RegistryError) as refused:
        async with at.place("b"):
            pass
    assert trio.current_time() - began == pytest.approx(7.5)
    assert refused.value.error is ErrorCode.TOOMANYREQUESTS
    assert refused.value.headers["Retry-After"] == "8"
    uploads.end("a")
    await wait_all_tasks_blocked()
    assert at.statistics().held == at.statistics().waiting == 0


@pytest.mark.parametrize("at_once", [False, True], ids=["before", "in the same moment"])
async def test_cancelled_in_the_queue(at_once: bool, nursery: trio.Nursery) -> None:
    """Its turn goes to the next, also if it was cancelled just when it came."""
    uploads = Uploads(admission(1))
    scope = trio.CancelScope()

    async def cancelled() -> None:
        with scope:
            await uploads.run("b", "b")

    async with AsyncExitStack() as first:
        await first.enter_async_context(uploads.at.place("a"))
        nursery.start_soon(cancelled)
        await wait_all_tasks_blocked()
        nursery.start_soon(uploads.run, "c", "c")
        await wait_all_tasks_blocked()
        scope.cancel()
        if not at_once:
            await wait_all_tasks_blocked()
            assert uploads.at.statistics().waiting == 1
    await wait_all_tasks_blocked()
    assert uploads.inside == ["c"]
    assert uploads.at.statistics().held == 1
    uploads.end("c")


async def test_a_place_is_kept_between_two_requests(autojump_clock: MockClock) -> None:
    """So that a push that was let in at POST is not sent away at PATCH; but not for ever."""
    at = admission(1, wait=1.0)
    async with at.place("a") as place:
        place.keep("upload")
    with pytest.raises(RegistryError):
        async with at.place("b"):
            pass
    async with at.place("a", "upload") as place:
        place.keep("upload")
    assert at.statistics().kept == 1
    await trio.sleep(KEPT_SECONDS)
    async with at.place("b"):
        assert at.statistics().kept == 0
    async with at.place("a", "upload") as place:
        place.keep("upload")
    at.drop("upload")
    at.drop("upload")
    assert at.statistics().held == 0


async def test_who_waits_gets_a_place_that_was_kept_too_long(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """Somebody looks, as the server does every second."""
    at = admission(1, wait=2 * KEPT_SECONDS)
    async with at.place("a") as place:
        place.keep("upload")
    uploads = Uploads(at)
    nursery.start_soon(uploads.run, "b", "b")
    await trio.sleep(KEPT_SECONDS + 1)
    assert uploads.inside == []
    at.expire()
    await wait_all_tasks_blocked()
    assert uploads.inside == ["b"]
    uploads.end("b")


async def test_the_place_of_another_client_is_not_taken_over() -> None:
    """Who continues a session that someone else began takes a place of its own."""
    at = admission(10)
    async with at.place("a") as place:
        place.keep("upload")
    async with at.place("b", "upload"):
        assert at.statistics().held == 1
        assert at._places._held == {"b": 1}


async def test_a_body_that_fails_gives_its_place_back() -> None:
    """Whatever was to be kept."""
    at = admission(1)
    with pytest.raises(OSError, match="gone"):
        async with at.place("a"):
            raise OSError("gone")
    assert at.statistics().held == 0


async def test_limits_can_be_changed(nursery: trio.Nursery) -> None:
    """More places let in who waits; with fewer nobody is sent away and nobody comes in."""
    uploads = Uploads(admission(1))
    for name in "abc":
        nursery.start_soon(partial(uploads.run, name, name))
        await wait_all_tasks_blocked()
    uploads.at.limits = AdmissionLimits(2, 100, 10.0)
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a", "b"]
    uploads.at.limits = AdmissionLimits(1, 100, 10.0)
    uploads.end("a")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a", "b"]
    uploads.end("b")
    await wait_all_tasks_blocked()
    assert uploads.inside == ["a", "b", "c"]
    uploads.end_all()
