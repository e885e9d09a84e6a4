"""Resumable digest states.

Rule: what is saved is engine-neutral, so that any worker with any engine continues any upload: the eight
chaining words in big-endian, the length in bytes as 16 bytes big-endian, then the tail of
``length % block`` bytes that were not compressed yet (FIPS 180-4, section 6.2.2).

Engines, best first: the compiled `_engine` (its states can also be hashed side by side); OpenSSL's
`SHA256_CTX` through ctypes (hashlib's speed; hashlib itself cannot be saved); and hashlib, whose `save` is
None: an upload then re-reads what is on disk once when it resumes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Protocol, cast

from trioreg.oci.digest import Algorithm


class DigestState(Protocol):
    """The digest of the bytes so far. One thread at a time; nothing here waits."""

    def update(self, data: memoryview) -> None:
        """Add bytes. Releases the GIL."""

    def digest(self) -> bytes:
        """The digest of what came so far; the state goes on."""

    def copy(self) -> DigestState: ...

    def save(self) -> bytes | None:
        """The neutral form; None if this engine has none."""


class _Layout(NamedTuple):
    """One SHA-2 function: word format of the neutral form, block size, and the fields of OpenSSL's context.

    ``SHA256_CTX {u32 h[8], Nl, Nh, data[16]; unsigned num, md_len}`` and
    ``SHA512_CTX {u64 h[8], Nl, Nh; u8 data[128]; unsigned num, md_len}`` (openssl/sha.h, unchanged
    since 0.9.8). Nh and Nl count bits; data begins with the tail of `num` bytes.
    """

    word: str
    block: int
    digest_size: int
    functions: str

    @property
    def context(self) -> struct.Struct:
        return struct.Struct(f"=8{self.word}2{self.word}{self.block}s2I")

    @property
    def words(self) -> struct.Struct:
        return struct.Struct(f">8{self.word}")

    @property
    def counter_bits(self) -> int:
        return 8 * struct.calcsize(f"={self.word}")


_LAYOUTS: dict[Algorithm, _Layout] = {
    "sha256": _Layout("I", 64, 32, "SHA256"),
    "sha512": _Layout("Q", 128, 64, "SHA512"),
}
_LENGTH_BYTES = 16


class _Functions(NamedTuple):
    init: Callable[[ctypes.Array[ctypes.c_char]], int]
    update: Callable[[ctypes.Array[ctypes.c_char], int, int], int]
    final: Callable[[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]], int]


class OpensslState:
    """A `SHA256_CTX` or `SHA512_CTX` of the OpenSSL that the interpreter itself is linked with."""

    __slots__ = ("_algorithm", "_context", "_functions")

    def __init__(self, algorithm: Algorithm):
        self._algorithm = algorithm
        self._functions = _openssl(algorithm)
        self._context = ctypes.create_string_buffer(_LAYOUTS[algorithm].context.size)
        self._functions.init(self._context)

    def update(self, data: memoryview) -> None:
        if not data.nbytes:
            return
        if data.readonly:
            keep = data.tobytes()
            address = ctypes.cast(ctypes.c_char_p(keep), ctypes.c_void_p).value or 0
        else:
            keep = ctypes.c_char.from_buffer(data)  # type: ignore[assignment]
            address = ctypes.addressof(keep)  # type: ignore[arg-type]
        self._functions.update(self._context, address, data.nbytes)

    def digest(self) -> bytes:
        result = ctypes.create_string_buffer(_LAYOUTS[self._algorithm].digest_size)
        self._functions.final(self.copy()._context, result)
        return bytes(result)

    def copy(self) -> OpensslState:
        twin = OpensslState(self._algorithm)
        ctypes.memmove(twin._context, self._context, len(self._context))
        return twin

    def save(self) -> bytes:
        layout = _LAYOUTS[self._algorithm]
        *words, low, high, data, tail, _ = layout.context.unpack(self._context.raw)
        length = (high << layout.counter_bits | low) // 8
        saved: bytes = layout.words.pack(*words) + length.to_bytes(_LENGTH_BYTES, "big") + data[:tail]
        return saved

    @classmethod
    def load(cls, algorithm: Algorithm, saved: bytes) -> OpensslState:
        layout = _LAYOUTS[algorithm]
        words, length, tail = _split(layout, saved)
        bits = 8 * length
        state = cls(algorithm)
        state._context.raw = layout.context.pack(
            *words,
            bits & ((1 << layout.counter_bits) - 1),
            bits >> layout.counter_bits,
            tail,
            len(tail),
            layout.digest_size,
        )
        return state


class HashlibState:
    """The standard library's; correct everywhere, cannot be saved."""

    __slots__ = ("_hash",)

    def __init__(self, algorithm: Algorithm):
        self._hash = hashlib.new(algorithm)

    def update(self, data: memoryview) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()

    def copy(self) -> HashlibState:
        twin = object.__new__(HashlibState)
        twin._hash = self._hash.copy()
        return twin

    def save(self) -> None:
        return None


def new_state(algorithm: Algorithm) -> DigestState:
    native = native_engine()
    if native is not None:
        fresh: DigestState = native.State(algorithm)
        return fresh
    return OpensslState(algorithm) if openssl_works() else HashlibState(algorithm)


def load_state(algorithm: Algorithm, saved: bytes) -> DigestState | None:
    """A state that goes on from what any engine saved; None if no engine here can.

    Raises ValueError for bytes that are no saved state.
    """
    _split(_LAYOUTS[algorithm], saved)
    native = native_engine()
    if native is not None:
        resumed: DigestState = native.State.load(algorithm, saved)
        return resumed
    return OpensslState.load(algorithm, saved) if openssl_works() else None


@cache
def native_engine() -> Any:
    """The module `_engine`, told where OpenSSL is; None where it was not built.

    ``TRIOREG_TEST_NO_ENGINE=1`` leaves it out, so that tests can run what serves without a compiler.
    """
    if os.environ.get("TRIOREG_TEST_NO_ENGINE"):
        return None
    try:
        from trioreg.pipeline import _engine
    except ImportError:
        return None
    if openssl_works():
        addresses = [
            ctypes.cast(cast(Any, _openssl(algorithm).update), ctypes.c_void_p).value or 0
            for algorithm in _LAYOUTS
        ]
        _engine.set_openssl(*addresses)
    return _engine


@cache
def openssl_works() -> bool:
    """Whether OpenSSL's contexts are to be had and are what we take them for: tried, not assumed."""
    try:
        return all(_survives_saving(algorithm) for algorithm in _LAYOUTS)
    except (ImportError, OSError, AttributeError, ValueError, struct.error):
        return False


def _survives_saving(algorithm: Algorithm) -> bool:
    data = bytes(range(251))
    state = OpensslState(algorithm)
    state.update(memoryview(data))
    resumed = OpensslState.load(algorithm, state.save())
    resumed.update(memoryview(data))
    return resumed.digest() == hashlib.new(algorithm, data + data).digest()


@cache
def _openssl(algorithm: Algorithm) -> _Functions:
    import _hashlib  # its own link to libcrypto tells which OpenSSL is loaded

    library = ctypes.CDLL(_hashlib.__file__)
    name = _LAYOUTS[algorithm].functions
    update = getattr(library, f"{name}_Update")
    update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return _Functions(getattr(library, f"{name}_Init"), update, _final(library, name))


def _final(library: ctypes.CDLL, name: str) -> Callable[..., int]:
    final = getattr(library, f"{name}_Final")

    def in_order(context: ctypes.Array[ctypes.c_char], result: ctypes.Array[ctypes.c_char]) -> int:
        return int(final(result, context))

    return in_order


def _split(layout: _Layout, saved: bytes) -> tuple[tuple[int, ...], int, bytes]:
    """The words, the length and the tail of a saved state, or ValueError."""
    head = layout.words.size + _LENGTH_BYTES
    length = int.from_bytes(saved[layout.words.size : head], "big")
    if len(saved) != head + length % layout.block:
        raise ValueError("not a saved digest state")
    return layout.words.unpack_from(saved), length, saved[head:]
