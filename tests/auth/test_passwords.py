"""Passwords are checked off the loop, once for those who ask at the same time, and not again for a while."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from auth.people import PASSWORDS, basic, guard, hashed, write_htpasswd
from trioreg.auth.authorizer import asker
from trioreg.auth.guard import Guard
from trioreg.auth.htpasswd import Htpasswd, parse_htpasswd
from trioreg.oci.errors import ErrorCode, RegistryError


class Slow:
    """In place of bcrypt: waits until it is let go, and counts."""

    def __init__(self, access: Guard) -> None:
        assert access._sources.htpasswd is not None
        self.htpasswd: Htpasswd = access._sources.htpasswd
        self.htpasswd._check_password = self.check
        self.calls = 0
        self.go = threading.Event()

    def check(self, password: bytes, hashed_password: bytes) -> bool:
        self.calls += 1
        assert self.go.wait(30)
        return password == PASSWORDS["ann"].encode()


async def test_a_hundred_requests_cost_one_check(tmp_path: Path) -> None:
    """Together or one after the other."""
    access = guard(tmp_path)
    slow = Slow(access)
    header = basic("ann")["Authorization"]
    found = []

    async def ask() -> None:
        found.append(await access.identify(header, None))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        slow.go.set()
    for _ in range(100):
        await ask()
    assert slow.calls == 1
    assert {each.name for each in found if each} == {"ann"} and len(found) == 200


async def test_a_client_that_leaves_takes_nobody_with_it(tmp_path: Path) -> None:
    """Who waited for its check makes one of their own."""
    access = guard(tmp_path)
    slow = Slow(access)
    header = basic("ann")["Authorization"]
    found = []

    async def wait_behind() -> None:
        found.append(await access.identify(header, None))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            async with trio.open_nursery() as client:
                client.start_soon(access.identify, header, None)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait_behind)
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        slow.go.set()
    assert [each.name for each in found if each] == ["ann"]


async def test_a_flood_of_guesses_is_bounded(tmp_path: Path) -> None:
    """Two threads, 64 at a time; who comes then is told to come again."""
    access = guard(tmp_path)
    slow = Slow(access)
    refused = []

    async def guess(number: int) -> None:
        asker.set(f"10.0.0.{number}")
        try:
            assert not await slow.htpasswd.check("ann", f"guess {number}")
        except RegistryError as error:
            refused.append(error.error)

    async with trio.open_nursery() as nursery:
        for number in range(80):
            nursery.start_soon(guess, number)
        await trio.testing.wait_all_tasks_blocked()
        assert refused == [ErrorCode.TOOMANYREQUESTS] * 16
        slow.go.set()
    assert slow.calls == 64
    assert slow.htpasswd._running == {}


async def test_who_guesses_keeps_nobody_else_out(tmp_path: Path) -> None:
    """One address never has all places, so another one's password is looked at."""
    access = guard(tmp_path)
    slow = Slow(access)
    results: list[bool | ErrorCode] = []

    async def show(address: str, password: str) -> None:
        asker.set(address)
        try:
            results.append(await slow.htpasswd.check("ann", password))
        except RegistryError as error:
            results.append(error.error)

    async with trio.open_nursery() as nursery:
        for number in range(80):
            nursery.start_soon(show, "10.0.0.1", f"guess {number}")
        await trio.testing.wait_all_tasks_blocked()
        assert results == [ErrorCode.TOOMANYREQUESTS] * 23
        results.clear()
        nursery.start_soon(show, "10.0.0.2", PASSWORDS["ann"])
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        slow.go.set()
    assert results.count(True) == 1
    assert slow.htpasswd._asked == {}


async def test_no_credentials_stay_in_memory(tmp_path: Path) -> None:
    """What is remembered is a keyed hash of them."""
    access = guard(tmp_path)
    assert await access.identify(basic("ann")["Authorization"], None)
    kept = repr(access._known) + repr(access._decisions)
    assert PASSWORDS["ann"] not in kept
    assert basic("ann")["Authorization"].split()[1] not in kept


async def test_a_password_longer_than_bcrypt_looks_at(tmp_path: Path) -> None:
    """Its first 72 bytes count, as htpasswd does it."""
    htpasswd = Htpasswd(write_htpasswd(tmp_path))
    assert await htpasswd.check("root", PASSWORDS["root"])
    assert not await htpasswd.check("root", "x" * 71)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ann:plain", "line 1: not a bcrypt hash"),
        ("ann:$apr1$abc$def", "line 1: not a bcrypt hash"),
        ("ann", "line 1: not a bcrypt hash"),
        (f"robot+ci:{hashed('x')}", "line 1: not a name"),
        (f"cloud/ann:{hashed('x')}", "line 1: not a name"),
        (f":{hashed('x')}", "line 1: not a name"),
    ],
)
def test_lines_that_are_refused(line: str, says: str) -> None:
    """Weak hashes, and names that other sources have; the line is named, its hash is not."""
    with pytest.raises(ValueError, match="line") as refused:
        parse_htpasswd(f"{line}\n".encode())
    assert says in str(refused.value)
    assert "$2" not in str(refused.value)
