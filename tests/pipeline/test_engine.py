"""The compiled digest engine agrees with hashlib, keeps order, and owns what it works on.

`TRIOREG_TEST_FEEDS=5000000` feeds that many random pieces instead of a few hundred thousand. The same
tests run under AddressSanitizer and ThreadSanitizer: docs/engine.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import hashlib
import mmap
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("trioreg.pipeline._engine", reason="the extension is not built")

from trioreg.pipeline._engine import (
    Engine,
    State,
    capabilities,
    set_openssl,
    use_single,
)

FEEDS = int(os.environ.get("TRIOREG_TEST_FEEDS", "300000"))
LANES = sorted(lanes for lanes, _ in capabilities()["ways"].values())
BLOCK = {"sha256": 64, "sha512": 128}
BYTES = random.Random(1).randbytes(1 << 20)
Completion = tuple[Any, int, bytes | None]

on_every_lane_count = pytest.mark.parametrize("lanes", [*LANES, None])
for_each_algorithm = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


def expected(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data).digest()


def openssl_addresses() -> tuple[int, int]:
    """SHA256_Update and SHA512_Update of the library that hashlib uses; skips where there is none."""
    hashlib_module = pytest.importorskip("_hashlib")
    library = ctypes.CDLL(hashlib_module.__file__)
    try:
        functions = [library.SHA256_Update, library.SHA512_Update]
    except AttributeError:
        pytest.skip("hashlib's OpenSSL does not show its functions")
    first, second = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
    return first, second


@pytest.fixture(params=["sha-ni", "openssl", "portable"])
def single(request: pytest.FixtureRequest) -> Iterator[str]:
    """Lone streams go through this code."""
    if request.param == "openssl":
        set_openssl(*openssl_addresses())
    try:
        use_single(request.param)
    except ValueError:
        pytest.skip(f"no {request.param} on this CPU")
    yield request.param
    set_openssl(0, 0)


@contextlib.contextmanager
def running(threads: int, *, lanes: int | None = None, batch: int = 16) -> Iterator[Engine]:
    engine = Engine(threads, lanes=lanes, batch=batch)
    try:
        yield engine
    finally:
        engine.close()
        engine.completed()


def collect(engine: Engine, count: int) -> list[Completion]:
    """The next completions, at least so many."""
    found: list[Completion] = []
    while len(found) < count:
        select.select([engine], [], [])
        found += engine.completed()
    return found


def hash_only(engine: Engine, state: State, data: bytes, tag: object = None) -> None:
    engine.submit(state, data, 0, len(data), -1, 0, tag)


# --- one state ---

LONGER = (
    b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
    b"hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"
)
VECTORS = {  # FIPS 180-4 examples, https://csrc.nist.gov/projects/cryptographic-standards-and-guidelines
    ("sha256", b"abc"): "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ("sha256", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"): (
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
    ("sha256", b"a" * 1_000_000): ("cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ("sha512", b"abc"): (
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
    ),
    ("sha512", LONGER): (
        "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
        "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"
    ),
    ("sha512", b"a" * 1_000_000): (
        "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
        "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"
    ),
}


@pytest.mark.parametrize(
    ("algorithm", "message", "digest"), [(*key, value) for key, value in VECTORS.items()]
)
def test_published_vectors(single: str, algorithm: str, message: bytes, digest: str) -> None:
    """The examples of FIPS 180-4 come out, one stream at a time and in every lane."""
    state = State(algorithm)
    state.update(message)
    assert state.digest().hex() == digest
    for lanes in LANES:
        states = [State(algorithm) for _ in range(lanes + 1)]
        with running(1, lanes=lanes) as engine:
            for each in states:
                hash_only(engine, each, message)
            collect(engine, len(states))
        assert {each.digest().hex() for each in states} == {digest}


@for_each_algorithm
def test_every_size_and_every_split(single: str, algorithm: str) -> None:
    """Sizes of 0 to 3 blocks, each cut in two at every point, digest as hashlib does."""
    for size in range(3 * BLOCK[algorithm] + 1):
        digest = expected(algorithm, BYTES[:size])
        points = range(size + 1) if size % BLOCK[algorithm] in (0, 1, 63, 127) else (size // 2, size)
        for point in points:
            state = State(algorithm)
            state.update(BYTES[:point])
            state.update(BYTES[point:size])
            assert state.digest() == digest
            assert state.length == size


@for_each_algorithm
def test_saved_and_loaded_at_every_point(single: str, algorithm: str) -> None:
    """A state saved anywhere and loaded goes on to the same digest, and saves the same bytes."""
    whole = BYTES[: 3 * BLOCK[algorithm] + 5]
    digest = expected(algorithm, whole)
    state = State(algorithm)
    for point in range(len(whole)):
        saved = state.save()
        loaded = State.load(algorithm, saved)
        assert loaded.save() == saved
        assert (loaded.algorithm, loaded.length) == (algorithm, point)
        assert loaded.digest() == state.digest() == expected(algorithm, whole[:point])
        loaded.update(whole[point:])
        assert loaded.digest() == digest
        state.update(whole[point : point + 1])


@for_each_algorithm
def test_the_saved_form(algorithm: str) -> None:
    """Words big-endian, the length as 16 bytes big-endian, then the unfinished block.

    The words after whole blocks are checked through the digest: a hand-made final block over them
    gives what hashlib gives.
    """
    block, words = BLOCK[algorithm], hashlib.new(algorithm).digest_size
    state = State(algorithm)
    state.update(BYTES[: 2 * block + 7])
    saved = state.save()
    assert saved[words : words + 16] == (2 * block + 7).to_bytes(16, "big")
    assert saved[words + 16 :] == BYTES[2 * block : 2 * block + 7]

    padding = b"\x80" + bytes(block - 7 - 1 - block // 8)
    padding += (8 * (2 * block + 7)).to_bytes(block // 8, "big")
    state.update(padding)
    assert state.save()[:words] == expected(algorithm, BYTES[: 2 * block + 7])


def spoiled_states() -> dict[str, tuple[str, bytes]]:
    short, long = State("sha256"), State("sha256")
    short.update(b"x" * 10)
    long.update(b"x" * 100)
    saved, later = short.save(), long.save()
    return {
        "empty": ("sha256", b""),
        "cut in the words": ("sha256", saved[:31]),
        "cut in the length": ("sha256", saved[:47]),
        "tail one short": ("sha256", saved[:-1]),
        "tail one long": ("sha256", saved + b"x"),
        "another algorithm": ("sha512", later),
        "length over 2^64": ("sha256", later[:32] + b"\x01" + later[33:]),
        "length over 2^61": ("sha256", later[:40] + b"\xff" + later[41:]),
        "words of a block never finished": ("sha256", b"\x00" + saved[1:]),
        "unknown algorithm": ("md5", saved),
    }


@pytest.mark.parametrize("what", spoiled_states())
def test_a_bad_saved_state_is_refused(what: str) -> None:
    """What cannot be a state is a ValueError, never a state that goes on wrongly."""
    with pytest.raises(ValueError, match=r"state|algorithm"):
        State.load(*spoiled_states()[what])


def test_a_copy_goes_its_own_way() -> None:
    """Neither of state and copy sees what the other is fed."""
    state = State("sha256")
    state.update(b"common")
    copy = state.copy()
    state.update(b" one")
    copy.update(memoryview(b" two"))
    assert state.digest() == expected("sha256", b"common one")
    assert copy.digest() == expected("sha256", b"common two")


def test_only_sha256_and_sha512() -> None:
    """Any other name is a ValueError, and a length that SHA-2 cannot count an OverflowError."""
    with pytest.raises(ValueError, match="md5"):
        State("md5")
    words, length = bytes(range(32)), ((1 << 61) - 64).to_bytes(16, "big")
    nearly_full = State.load("sha256", words + length)
    with pytest.raises(OverflowError):
        nearly_full.update(bytes(64))
    with running(1) as engine:
        hash_only(engine, nearly_full, bytes(63))
        with pytest.raises(OverflowError):
            hash_only(engine, nearly_full, bytes(1))


def test_functions_that_are_not_openssls_are_refused() -> None:
    """Addresses that compute something else are a ValueError and are not used."""
    update256, update512 = openssl_addresses()
    before = capabilities()["single_sha512"]
    for wrong in ((update512, update256), (update256, 0), (update256, update256)):
        with pytest.raises(ValueError, match="SHA256_Update"):
            set_openssl(*wrong)
    assert capabilities()["single_sha512"] == before


# --- lanes ---


@on_every_lane_count
@for_each_algorithm
def test_uneven_streams_side_by_side(lanes: int | None, algorithm: str) -> None:
    """One to forty streams of different sizes around block boundaries, all right."""
    sizes = [block * 64 + extra for block in (0, 1, 2, 3, 9, 40) for extra in (-1, 0, 1, 37)]
    chooser = random.Random(2)
    with running(1, lanes=lanes, batch=64) as engine:
        for count in range(1, 41):
            states = [State(algorithm) for _ in range(count)]
            wanted = []
            for index, state in enumerate(states):
                size, start = max(chooser.choice(sizes), 0), chooser.randrange(1000)
                engine.submit(state, BYTES, start, start + size, -1, 0, index)
                wanted.append(expected(algorithm, BYTES[start : start + size]))
            collect(engine, count)
            assert [state.digest() for state in states] == wanted


class Feeder:
    """Random uneven feeds into one stream, beside hashlib; now and then saved and loaded."""

    SIZES = (0, 1, 3, 55, 56, 63, 64, 65, 119, 127, 128, 129, 191, 192, 193, 255, 256, 257, 700)

    def __init__(self, engine: Engine, algorithm: str, chooser: random.Random):
        self.engine, self.algorithm, self.chooser = engine, algorithm, chooser
        self.state, self.truth = State(algorithm), hashlib.new(algorithm)
        self.submitted = 0
        self.reported = 0
        self.wanted: dict[int, bytes] = {}

    def feed(self) -> None:
        choose = self.chooser.random()
        size = int(choose * 4000) if choose > 0.98 else self.SIZES[int(choose * 19)]
        start = int(self.chooser.random() * 100_000)
        want_state = choose < 0.2
        self.truth.update(BYTES[start : start + size])
        if want_state:
            self.wanted[self.submitted] = self.truth.digest()
        self.engine.submit(self.state, BYTES, start, start + size, -1, 0, (self, self.submitted), want_state)
        self.submitted += 1

    def report(self, number: int, error: int, saved: bytes | None) -> None:
        assert (number, error) == (self.reported, 0)
        self.reported += 1
        if (digest := self.wanted.pop(number, None)) is not None:
            assert saved is not None
            assert State.load(self.algorithm, saved).digest() == digest
            if self.reported == self.submitted:  # nothing in flight: go on from the record
                self.state = State.load(self.algorithm, saved)
        else:
            assert saved is None


@on_every_lane_count
def test_random_feeds_agree_with_hashlib(lanes: int | None) -> None:
    """Streams fed unevenly, saved and loaded at random, end with hashlib's digest."""
    chooser = random.Random(f"feeds {lanes}")
    left = FEEDS // (len(LANES) + 1)
    with running(2, lanes=lanes) as engine:
        while left > 0:
            feeders = [
                Feeder(engine, "sha256" if index % 8 else "sha512", chooser)
                for index in range(chooser.randrange(1, 60))
            ]
            total = min(left, 5000)
            left -= total
            reported = 0
            for sent in range(1, total + 1):
                feeders[int(chooser.random() * len(feeders))].feed()
                if sent % 256 == 0 or sent == total:
                    until = sent if sent == total or chooser.random() < 0.3 else 0
                    found = collect(engine, until - reported)
                    reported += len(found)
                    for tag, error, saved in found:
                        feeder, number = tag
                        feeder.report(number, error, saved)
            for feeder in feeders:
                assert feeder.state.digest() == feeder.truth.digest()


def test_statistics_count_what_was_done() -> None:
    """Every job and byte is counted, and lanes hold no more blocks than they have places."""
    with running(2) as engine:
        states = [State("sha256") for _ in range(50)]
        for state in states:
            engine.submit(state, BYTES, 0, 6400, -1, 0, None)
        collect(engine, 50)
        found = engine.statistics()
    assert (found["jobs"], found["bytes"]) == (50, 50 * 6400)
    assert found["waiting"] == found["completed"] == 0
    assert found["lane_blocks"] + found["single_blocks"] == 50 * 100
    assert found["lane_blocks"] <= found["lane_places"]
    assert 1 <= found["wakeups"] <= found["batches"] <= 50


# --- writes ---


def test_bytes_are_written_where_they_belong(tmp_path: Path) -> None:
    """Pieces of many streams land in their files at their offsets, and each state knows its digest."""
    chooser = random.Random(3)
    with running(2) as engine, contextlib.ExitStack() as files:
        written = []
        jobs = 0
        for number in range(20):
            fd = os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT)
            files.callback(os.close, fd)
            state, content = State("sha256"), b""
            for _ in range(30):
                size, start = chooser.randrange(20_000), chooser.randrange(100_000)
                engine.submit(state, BYTES, start, start + size, fd, len(content), None)
                content += BYTES[start : start + size]
                jobs += 1
            written.append((state, content, tmp_path / str(number)))
        assert [error for _, error, _ in collect(engine, jobs)] == [0] * jobs
        for state, content, path in written:
            assert path.read_bytes() == content
            assert state.digest() == expected("sha256", content)


def test_a_failed_write_is_told_and_the_digest_goes_on(tmp_path: Path) -> None:
    """Read-only, full and unseekable targets report their errno; later jobs still run."""
    path = tmp_path / "data"
    path.touch()
    state = State("sha256")
    reader, writer = os.pipe()
    targets = {
        errno.EBADF: os.open(path, os.O_RDONLY),
        errno.ENOSPC: os.open("/dev/full", os.O_WRONLY),
        errno.ESPIPE: writer,
        0: os.open(path, os.O_WRONLY),
    }
    with running(1) as engine:
        for wanted, fd in targets.items():
            engine.submit(state, b"x" * 100, 0, 100, fd, 0, wanted)
        for tag, error, saved in collect(engine, 4):
            assert (tag, saved) == (error, None)
    assert state.digest() == expected("sha256", b"x" * 400)
    assert path.read_bytes() == b"x" * 100
    for fd in (reader, *targets.values()):
        os.close(fd)


def test_a_short_write_goes_on_to_the_error(tmp_path: Path) -> None:
    """A file limit cuts the first write short: what fits is written, then EFBIG is reported.

    Python ignores SIGXFSZ, and the workers block every signal.
    """
    fd = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with running(1) as engine:
            engine.submit(State("sha256"), BYTES, 0, 20_000, fd, 0, "big")
            assert collect(engine, 1) == [("big", errno.EFBIG, None)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        os.close(fd)
    assert (tmp_path / "data").read_bytes() == BYTES[:5000]


@pytest.mark.parametrize(
    ("offset", "size", "pages"),
    [
        (0, 65536, (0, 65536)),
        (0, 65535, None),  # less than is worth it
        (4096, 65536 + 4095, (4096, 65536)),
        (100, 3996 + 65536 + 7, (4096, 65536)),
        (4095, 1 + 81920, (4096, 81920)),
        (4095, 65536, None),
    ],
)
def test_whole_pages_leave_past_the_cache(
    tmp_path: Path, offset: int, size: int, pages: tuple[int, int] | None
) -> None:
    """The pages of a piece go to the direct descriptor, what is before and behind them to the other.

    Two files stand for the two ways into one, so that it shows which bytes took which.
    """
    memory = mmap.mmap(-1, 1 << 20)
    start = offset % mmap.PAGESIZE
    memory[start : start + size] = BYTES[:size]
    fds = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("cached", "direct")]
    with running(1) as engine:
        engine.submit(
            State("sha256"), memory, start, start + size, fds[0], offset, None, direct=fds[1], reserve=1 << 20
        )
        assert collect(engine, 1) == [(None, 0, None)]
    cached, direct = (os.pread(fd, 1 << 20, 0) for fd in fds)
    first, length = pages or (offset, 0)
    before = first - offset
    assert direct[first:] == BYTES[before : before + length]
    assert cached[offset:first] == BYTES[:before]
    assert cached[first + length :] == BYTES[before + length : size]
    for fd in fds:
        os.close(fd)


def test_what_cannot_be_written_directly_goes_through_the_cache(tmp_path: Path) -> None:
    """Memory that lies otherwise than the file, and a target that says EINVAL."""
    memory = mmap.mmap(-1, 1 << 20)
    memory[:] = BYTES
    # Refuses what is no number with EINVAL, as a filesystem does what is not aligned to its liking.
    refusing = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    for start, direct in ((0, refusing), (1, refusing)):
        fd = os.open(tmp_path / str(start), os.O_RDWR | os.O_CREAT)
        with running(1) as engine:
            engine.submit(State("sha256"), memory, start, start + 100_000, fd, 0, None, direct=direct)
            assert collect(engine, 1) == [(None, 0, None)]
        assert os.pread(fd, 1 << 20, 0) == BYTES[start : start + 100_000]
        os.close(fd)
    os.close(refusing)


# --- order, wake-ups, ownership ---


@pytest.mark.parametrize("threads", [1, 4])
def test_jobs_of_one_state_are_reported_in_order(tmp_path: Path, threads: int) -> None:
    """Whatever is written or not, and by whichever thread, each state's jobs come in order."""
    fd = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    states = [State("sha256") for _ in range(5)]
    with running(threads, batch=2) as engine:
        for number in range(200):
            for index, state in enumerate(states):
                size = 30_000 if (number + index) % 3 == 0 else 10
                target = fd if size > 10 else -1
                engine.submit(state, BYTES, 0, size, target, 0, (index, number))
        tags = [tag for tag, _, _ in collect(engine, 1000)]
    os.close(fd)
    for index in range(5):
        assert [tag for tag in tags if tag[0] == index] == [(index, n) for n in range(200)]


def test_readable_exactly_while_there_is_something() -> None:
    """The descriptor is readable after a job ends, and no longer once all was handed out."""
    with running(1) as engine:
        for _ in range(20):
            assert select.select([engine], [], [], 0) == ([], [], [])
            hash_only(engine, State("sha256"), b"x", "tag")
            assert collect(engine, 1) == [("tag", 0, None)]
        assert engine.completed() == []


def test_one_wake_up_until_collected() -> None:
    """However many batches end, the descriptor is written once until completed() is called."""
    with running(2, batch=1) as engine:
        for round_number in range(1, 4):
            for _ in range(50):
                hash_only(engine, State("sha256"), BYTES[:5000])
            while engine.statistics()["completed"] < 50:
                os.sched_yield()
            assert engine.statistics()["wakeups"] == round_number
            assert len(engine.completed()) == 50
        assert engine.statistics()["batches"] == 150


async def test_trio_waits_on_it() -> None:
    """Trio's wait_readable is woken by the engine; no thread hops."""
    state = State("sha256")
    with running(1) as engine:
        for _ in range(10):
            hash_only(engine, state, BYTES, "done")
            with trio.fail_after(30):
                await trio.lowlevel.wait_readable(engine.fileno())
            assert [tag for tag, _, _ in engine.completed()] == ["done"]
    assert state.digest() == expected("sha256", BYTES * 10)


def test_a_state_in_flight_is_not_to_be_touched() -> None:
    """Until its jobs are collected a state refuses everything but its length; so does another engine."""
    state = State("sha256")
    with running(1) as engine, running(1) as other:
        hash_only(engine, state, b"x")
        update = partial(state.update, b"x")
        touches: list[Callable[[], object]] = [state.digest, state.copy, state.save, update]
        for touch in touches:
            with pytest.raises(RuntimeError, match="in use"):
                touch()
        with pytest.raises(RuntimeError, match="another engine"):
            hash_only(other, state, b"x")
        assert state.length in (0, 1)
        collect(engine, 1)
        hash_only(other, state, b"y")
        collect(other, 1)
    assert state.digest() == expected("sha256", b"xy")


@pytest.mark.parametrize(
    ("start", "end", "offset"), [(-1, 2, 0), (3, 2, 0), (0, 11, 0), (11, 11, 0), (0, 1, -1)]
)
def test_no_such_bytes(start: int, end: int, offset: int) -> None:
    """Bytes outside the buffer and negative offsets are refused, and nothing stays held."""
    state, buffer = State("sha256"), bytearray(10)
    with running(1) as engine:
        with pytest.raises(ValueError, match=r"no (such|bytes)"):
            engine.submit(state, buffer, start, end, 1, offset, None)
        buffer.append(0)  # would be a BufferError if the buffer were held
        assert state.digest() == expected("sha256", b"")


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"threads": 65}, {"batch": 0}, {"batch": 65}])
def test_impossible_engines(arguments: dict[str, int]) -> None:
    """Numbers out of range and lanes that no CPU has are ValueErrors."""
    with pytest.raises(ValueError, match="must be"):
        Engine(**{"threads": 1, **arguments})
    for lanes in (0, -1, 5, 32):
        with pytest.raises(ValueError, match="lanes"):
            Engine(1, lanes=lanes)


class Block(bytearray):
    """A buffer one can hold weakly."""


class Tag:
    """A tag one can hold weakly, and that may point back."""

    engine: Engine | None = None


def test_a_job_owns_what_it_works_on() -> None:
    """With every reference dropped at once the digest is right, and all is freed once collected."""
    with running(2) as engine:
        weak: list[weakref.ref[Any]] = []
        for number in range(100):
            block, tag, state = Block(number.to_bytes(1, "big") * 50_000), Tag(), State("sha256")
            weak += [weakref.ref(block), weakref.ref(tag)]
            engine.submit(state, block, 0, 50_000, -1, 0, (number, tag), True)
            with pytest.raises(BufferError):
                block.append(0)
            del block, tag, state
            gc.collect(0)
        assert all(ref() is not None for ref in weak)
        while engine.statistics()["completed"] < 100:
            os.sched_yield()
        for (number, _), error, saved in collect(engine, 100):
            assert (error, saved) != (0, None)
            digest = State.load("sha256", saved or b"").digest()
            assert digest == expected("sha256", number.to_bytes(1, "big") * 50_000)
        del _
        assert [ref() for ref in weak] == [None] * 200


def test_a_dropped_engine_lets_go_of_its_jobs() -> None:
    """An engine that nobody holds ends its threads and frees its jobs, even held by its own tags."""
    before = set(os.listdir("/proc/self/task"))
    for cycle in (False, True):
        engine = Engine(2)
        tag = Tag()
        tag.engine = engine if cycle else None
        weak: list[weakref.ref[Any]] = []
        for _ in range(200):
            block = Block(30_000)
            weak.append(weakref.ref(block))
            engine.submit(State("sha256"), block, 0, 30_000, -1, 0, tag)
        del engine, block, tag
        gc.collect()
        assert [ref() for ref in weak] == [None] * 200
    deadline = time.monotonic() + 10
    while set(os.listdir("/proc/self/task")) - before:  # A joined thread may be listed a moment longer.
        assert time.monotonic() < deadline
        os.sched_yield()


def test_workers_take_no_signals() -> None:
    """Every signal that can be blocked is blocked in the engine's threads, so Python's get them."""
    before = set(os.listdir("/proc/self/task"))
    with running(3):
        workers = set(os.listdir("/proc/self/task")) - before
        assert len(workers) == 3
        for worker in workers:
            status = Path(f"/proc/self/task/{worker}/status").read_text()
            blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
            free = {number for number in range(1, 32) if not blocked >> (number - 1) & 1}
            assert free == {signal.SIGKILL, signal.SIGSTOP}


def test_close_cancels_what_has_not_begun() -> None:
    """After close each state's jobs are a row of done ones, then a row of ECANCELED; digests agree.

    Whatever the threads got to: half a gigabyte waits in one state, so most of it has not begun.
    """
    engine = Engine(2)
    states = [State("sha256") for _ in range(3)]
    for index, state in enumerate(states):
        for _ in range(200):
            engine.submit(state, BYTES, 0, len(BYTES), -1, 0, index, True)
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        hash_only(engine, State("sha256"), b"")
    found = engine.completed()
    assert len(found) == 600
    assert engine.completed() == []
    for index, state in enumerate(states):
        errors = [error for tag, error, _ in found if tag == index]
        done = errors.count(0)
        assert errors == [0] * done + [errno.ECANCELED] * (200 - done)
        assert all((saved is None) == (error != 0) for _, error, saved in found)
        assert state.digest() == expected("sha256", BYTES * done)
        state.update(b"goes on")


def test_a_storm_of_cancellations(tmp_path: Path) -> None:
    """Thousands of jobs whose owners vanish at random, engines too; what is kept is right.

    This is the test to run under AddressSanitizer.
    """
    chooser = random.Random(4)
    fd = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    for _ in range(12):
        engine = Engine(chooser.choice([1, 2, 3]), batch=chooser.choice([1, 4, 16, 64]))
        kept: list[tuple[State, hashlib._Hash]] = []
        for _ in range(500):
            if not kept or chooser.random() < 0.3:
                kept.append((State(chooser.choice(["sha256", "sha512"])), hashlib.sha256()))
                kept[-1] = (kept[-1][0], hashlib.new(kept[-1][0].algorithm))
            state, truth = chooser.choice(kept)
            block = bytearray(chooser.randbytes(chooser.choice([0, 1, 64, 200, 9000])))
            engine.submit(
                state, block, 0, len(block), chooser.choice([-1, fd]), 0, [len(block)], chooser.random() < 0.5
            )
            truth.update(block)
            if chooser.random() < 0.1:
                kept.pop(chooser.randrange(len(kept)))
            if chooser.random() < 0.05:
                engine.completed()
        fate = chooser.random()
        if fate < 0.4:
            while engine.statistics()["waiting"]:
                os.sched_yield()
            engine.close()
            engine.completed()
            assert all(state.digest() == truth.digest() for state, truth in kept)
        elif fate < 0.7:
            engine.close()
        del engine
        gc.collect(0)
        for state, _ in kept:
            state.digest()  # at rest: no job holds it any more
    os.close(fd)


def test_many_python_threads_at_once() -> None:
    """Threads that submit, collect and look at one engine at once lose no job."""
    engine = Engine(2)
    collected: list[Completion] = []
    states = [[State("sha256") for _ in range(10)] for _ in range(4)]

    def submit(own: list[State]) -> None:
        for number in range(500):
            hash_only(engine, own[number % 10], BYTES[: 100 + number])
            if number % 7 == 0:
                collected.extend(engine.completed())
                engine.statistics()

    threads = [threading.Thread(target=submit, args=(own,)) for own in states]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collected += collect(engine, 2000 - len(collected))
    assert len(collected) == 2000
    for own in states:
        for index, state in enumerate(own):
            truth = b"".join(BYTES[: 100 + number] for number in range(index, 500, 10))
            assert state.digest() == expected("sha256", truth)
    closers = [threading.Thread(target=engine.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    for thread in closers:
        thread.join()


ENDINGS = {
    "leaves it to the interpreter": "",
    "in a cycle": "tag.append(engine)",
    "hidden from the interpreter": "import ctypes; ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))",
    "in a forked child": (
        "import os; child = os.fork()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0\n"
        "else: del engine, state, tag"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_may_end_with_jobs_in_flight(ending: str) -> None:
    """An engine with work left never crashes or hangs the end of its process."""
    program = (
        "from trioreg.pipeline._engine import Engine, State\n"
        "engine, state, tag = Engine(2), State('sha256'), []\n"
        "for n in range(100): engine.submit(state, bytes(1 << 20), 0, 1 << 20, -1, 0, tag)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + ENDINGS[ending]],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert (done.returncode, done.stderr) == (0, b"")
