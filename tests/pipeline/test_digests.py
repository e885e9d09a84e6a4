"""Digest states agree with hashlib wherever they are split, and their saved form is what it says."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import get_args

import pytest

from trioreg.oci.digest import Algorithm
from trioreg.pipeline.digests import (
    DigestState,
    HashlibState,
    OpensslState,
    load_state,
    new_state,
    openssl_works,
)

BLOCK = {"sha256": 64, "sha512": 128}
DATA = random.Random(1).randbytes(4 * 128)

for_each_algorithm = pytest.mark.parametrize("algorithm", get_args(Algorithm))
needs_openssl = pytest.mark.skipif(not openssl_works(), reason="no OpenSSL contexts here: hashlib serves")


def expected(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data).digest()


def sizes(algorithm: str) -> list[int]:
    """0 to 3 blocks, around each boundary and around where the padding takes one more block."""
    block = BLOCK[algorithm]
    padding = block // 8 + 1  # the length field, and the bit that ends the message
    edges = {blocks * block + off for blocks in range(4) for off in (-1, 0, 1)}
    edges |= {blocks * block - padding + off for blocks in range(1, 4) for off in (-1, 0, 1)}
    return sorted(size for size in edges if size >= 0)


@for_each_algorithm
@needs_openssl
def test_openssl_at_every_split(algorithm: Algorithm) -> None:
    """In two pieces, going on with the state itself, a copy of it, and one that was saved and loaded."""
    for size in sizes(algorithm):
        data = memoryview(bytearray(DATA[:size]))
        right = expected(algorithm, data.tobytes())
        for split in range(size + 1):
            first = OpensslState(algorithm)
            first.update(data[:split])
            for second in (first.copy(), OpensslState.load(algorithm, first.save()), first):
                second.update(data[split:])
                assert second.digest() == right, (size, split)


@for_each_algorithm
def test_hashlib_at_every_split(algorithm: Algorithm) -> None:
    """The fallback agrees too."""
    for size in sizes(algorithm):
        data = memoryview(DATA[:size])
        for split in range(0, size + 1, 7):
            first = HashlibState(algorithm)
            first.update(data[:split])
            for second in (first.copy(), first):
                second.update(data[split:])
                assert second.digest() == expected(algorithm, data.tobytes())


def test_hashlib_cannot_be_saved() -> None:
    """And says so."""
    state: DigestState = HashlibState("sha256")
    assert state.save() is None


@for_each_algorithm
@pytest.mark.parametrize("kind", [pytest.param(OpensslState, marks=needs_openssl), HashlibState])
def test_a_digest_does_not_end_a_state(
    algorithm: Algorithm, kind: Callable[[Algorithm], OpensslState | HashlibState]
) -> None:
    """`digest` may be asked in between, and twice."""
    state = kind(algorithm)
    for end in range(0, 300, 50):
        assert state.digest() == state.digest() == expected(algorithm, DATA[:end])
        state.update(memoryview(DATA[end : end + 50]))


@for_each_algorithm
@pytest.mark.parametrize("kind", [pytest.param(OpensslState, marks=needs_openssl), HashlibState])
def test_a_copy_goes_its_own_way(
    algorithm: Algorithm, kind: Callable[[Algorithm], OpensslState | HashlibState]
) -> None:
    """Neither sees what the other is fed."""
    state = kind(algorithm)
    state.update(memoryview(b"both"))
    twin = state.copy()
    state.update(memoryview(b"one"))
    twin.update(memoryview(b"other"))
    assert state.digest() == expected(algorithm, b"bothone")
    assert twin.digest() == expected(algorithm, b"bothother")


@for_each_algorithm
@needs_openssl
@pytest.mark.parametrize("make", [bytes, bytearray], ids=["read-only", "writable"])
def test_memory_of_any_kind(algorithm: Algorithm, make: Callable[[bytes], bytes | bytearray]) -> None:
    """Also a part of a larger buffer; and a writable one can be resized afterwards (nothing holds it)."""
    buffer = make(DATA)
    state = OpensslState(algorithm)
    with memoryview(buffer) as view, view[10:200] as part:
        state.update(part)
        state.update(part[:0])
    if isinstance(buffer, bytearray):
        buffer.clear()
    assert state.digest() == expected(algorithm, DATA[10:200])


FIRST_WORDS = {
    # FIPS 180-4, 5.3.3 and 5.3.5: the words of a state that has compressed nothing.
    "sha256": "6a09e667bb67ae853c6ef372a54ff53a510e527f9b05688c1f83d9ab5be0cd19",
    "sha512": (
        "6a09e667f3bcc908bb67ae8584caa73b3c6ef372fe94f82ba54ff53a5f1d36f1"
        "510e527fade682d19b05688c2b3e6c1f1f83d9abfb41bd6b5be0cd19137e2179"
    ),
}


@for_each_algorithm
@needs_openssl
def test_the_saved_form_byte_by_byte(algorithm: Algorithm) -> None:
    """Eight words in big-endian, sixteen bytes of length in bytes, the tail: what other engines rely on."""
    block, words = BLOCK[algorithm], bytes.fromhex(FIRST_WORDS[algorithm])
    state = OpensslState(algorithm)
    assert state.save() == words + bytes(16)
    state.update(memoryview(b"abc"))
    assert state.save() == words + bytes(15) + b"\x03" + b"abc"
    # One block whose content is the padded empty message: its words are the digest of nothing.
    state = OpensslState(algorithm)
    state.update(memoryview(b"\x80" + bytes(block - 1)))
    assert state.save() == expected(algorithm, b"") + bytes(15) + bytes([block])
    state.update(memoryview(b"tail"))
    assert state.save() == expected(algorithm, b"") + bytes(15) + bytes([block + 4]) + b"tail"


@for_each_algorithm
@needs_openssl
@pytest.mark.parametrize("length", [2**29 - 64, 2**29, 2**32, 2**40, 2**61 - 128])
def test_lengths_past_32_bits_survive(algorithm: Algorithm, length: int) -> None:
    """The counter of OpenSSL counts bits, in two words; ours counts bytes."""
    length -= length % BLOCK[algorithm]
    saved = bytes.fromhex(FIRST_WORDS[algorithm]) + length.to_bytes(16, "big")
    state = OpensslState.load(algorithm, saved)
    assert state.save() == saved
    state.update(memoryview(b"more"))
    assert state.save()[-20:] == (length + 4).to_bytes(16, "big") + b"more"


@for_each_algorithm
@pytest.mark.parametrize("change", [-1000, -64, -1, 1, 64])
def test_bytes_of_another_length_are_no_state(algorithm: Algorithm, change: int) -> None:
    """Torn, padded or another algorithm's: refused, never guessed."""
    words = bytes.fromhex(FIRST_WORDS[algorithm])
    good = words + (BLOCK[algorithm] + 70 % BLOCK[algorithm]).to_bytes(16, "big")
    good += bytes(70 % BLOCK[algorithm])
    load_state(algorithm, good)
    bad = good[:change] if change < 0 else good + bytes(change)
    with pytest.raises(ValueError, match="not a saved digest state"):
        load_state(algorithm, bad)


@needs_openssl
def test_the_other_algorithms_state_is_refused() -> None:
    """Both ways."""
    for algorithm, other in (("sha256", "sha512"), ("sha512", "sha256")):
        state = new_state(algorithm)  # type: ignore[arg-type]
        state.update(memoryview(b"x" * 200))
        saved = state.save()
        assert saved is not None
        with pytest.raises(ValueError, match="not a saved digest state"):
            load_state(other, saved)  # type: ignore[arg-type]


@for_each_algorithm
def test_what_the_product_makes(algorithm: Algorithm) -> None:
    """`new_state` and `load_state` go together: either it can be saved and loaded, or neither."""
    state = new_state(algorithm)
    state.update(memoryview(DATA))
    saved = state.save()
    assert (saved is not None) == openssl_works()
    if saved is not None:
        loaded = load_state(algorithm, saved)
        assert loaded is not None
        assert loaded.digest() == expected(algorithm, DATA)
