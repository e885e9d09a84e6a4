"""Request rates: what a client may ask, when it may come again, and that counting is bounded."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import trio
from inprocess import FRONTS, Answer, serving

from trioreg.api import rates as module
from trioreg.api.rates import RateLimits, Rates
from trioreg.auth.authorizer import AllowAll
from trioreg.auth.identity import Identity
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.storage.memory import MemoryStorage


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def passed(rates: Rates, client: str, tries: int) -> int:
    """How many of some requests at once get through."""
    count = 0
    for _ in range(tries):
        try:
            rates.take(client)
            count += 1
        except RegistryError as error:
            if error.error is not ErrorCode.TOOMANYREQUESTS:
                raise
    return count


@pytest.mark.parametrize(("per_second", "burst"), [(10.0, 5), (0.5, 1), (3.0, 7), (1000.0, 100)])
def test_a_burst_and_then_the_rate(per_second: float, burst: int) -> None:
    """After quiet `burst` at once; then as many as the seconds that have passed are worth."""
    clock = Clock()
    rates = Rates(RateLimits(per_second, burst), clock)
    assert passed(rates, "a", 3 * burst) == burst
    for _ in range(20):
        clock.now += 1 / per_second
        assert passed(rates, "a", 3) == 1
    clock.now += 10 * burst / per_second
    assert passed(rates, "a", 3 * burst) == burst


@pytest.mark.parametrize(("per_second", "burst"), [(10.0, 5), (0.5, 1), (0.3, 7)])
def test_retry_after_is_true(per_second: float, burst: int) -> None:
    """Who comes back when it was told to gets through; asking in between makes it no later."""
    clock = Clock()
    rates = Rates(RateLimits(per_second, burst), clock)
    passed(rates, "a", burst)
    with pytest.raises(RegistryError) as refused:
        rates.take("a")
    passed(rates, "a", 100)
    clock.now += int(refused.value.headers["Retry-After"])
    assert passed(rates, "a", 1) == 1


def test_clients_do_not_count_for_each_other() -> None:
    """Each has its own."""
    rates = Rates(RateLimits(1.0, 2), Clock())
    assert [passed(rates, client, 5) for client in "abc"] == [2, 2, 2]


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that owe nothing are forgotten; of too many that owe something, those seen longest ago."""
    monkeypatch.setattr(module, "_MOST_CLIENTS", 100)
    clock = Clock()
    rates = Rates(RateLimits(1.0, 1), clock)
    for number in range(1000):
        rates.take(f"flood{number}")
        assert rates.statistics().clients <= 100
    assert passed(rates, "flood999", 1) == 0
    assert passed(rates, "flood0", 1) == 1
    clock.now += 1000
    for number in range(100):
        rates.take(f"later{number}")
    assert rates.statistics().clients <= 100
    assert passed(rates, "later0", 1) == 0


def test_the_memory_of_ten_thousand_clients() -> None:
    """The whole table takes less than 4 MB."""
    rates = Rates(RateLimits(1.0, 1), Clock())
    tracemalloc.start()
    try:
        for number in range(20_000):
            rates.count(f"2001:db8:{number:x}:{number:x}::/64")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert rates.statistics().clients == 10_000
    assert held < 4_000_000


def test_switched_off_it_forgets() -> None:
    """And counts nobody."""
    rates = Rates(RateLimits(1.0, 1), Clock())
    rates.take("a")
    rates.limits = RateLimits()
    assert not rates.active
    assert rates.statistics().clients == 0


class Passwords(AllowAll):
    """Knows ann and ben, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        self.asked += 1
        if authorization is None:
            return None
        if authorization not in ("ann", "ben"):
            raise RegistryError(ErrorCode.UNAUTHORIZED)
        return Identity(authorization)


def check_refused(answer: Answer) -> None:
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert json.loads(answer.body)["errors"][0]["code"] == "TOOMANYREQUESTS"


@pytest.mark.parametrize("front", FRONTS)
async def test_over_a_socket(front: str) -> None:
    """Each identity has its own rate, and who is anonymous that of the address."""
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front, authorizer=Passwords()) as server:
            server.service.rates.limits = RateLimits(0.01, 3)
            async with server.connect() as client:
                for who in ({"Authorization": "ann"}, {"Authorization": "ben"}, {}):
                    for _ in range(3):
                        assert (await client.request("GET", "/v2/", headers=who)).status == 200
                    check_refused(await client.request("GET", "/v2/", headers=who))


@pytest.mark.parametrize("front", FRONTS)
async def test_guessing_passwords(front: str) -> None:
    """What is wrong counts for the address; when that is used up nobody looks at passwords any more."""
    passwords = Passwords()
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front, authorizer=passwords) as server:
            server.service.rates.limits = RateLimits(0.01, 5)
            async with server.connect() as client:
                for number in range(20):
                    answer = await client.request("GET", "/v2/", headers={"Authorization": f"{number}"})
                    assert answer.status == (401 if number < 5 else 429)
    assert passwords.asked == 5
