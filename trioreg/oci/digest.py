"""Digests: an algorithm and lower-case hex, parsed once.

Grammar (image-spec, descriptor.md "Digests")::

    digest    ::= algorithm ":" encoded
    algorithm ::= "sha256" | "sha512"       (the registered ones; others are refused)
    encoded   ::= [a-f0-9]{64} | [a-f0-9]{128}
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal, NamedTuple, cast

from trioreg.oci.errors import ErrorCode, RegistryError

Algorithm = Literal["sha256", "sha512"]
ALGORITHMS: tuple[Algorithm, ...] = ("sha256", "sha512")
CANONICAL: Algorithm = "sha256"

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


class Digest(NamedTuple):
    """The name of some bytes. Made by `parse_digest` or `digest_of`, never by hand from foreign text."""

    algorithm: Algorithm
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def parse_digest(text: str) -> Digest:
    """A digest, or DIGEST_INVALID."""
    if not _DIGEST.fullmatch(text):
        raise RegistryError(ErrorCode.DIGEST_INVALID, {"digest": text[:200]})
    algorithm, _, encoded = text.partition(":")
    return Digest(cast(Algorithm, algorithm), encoded)


def parse_algorithm(text: str) -> Algorithm:
    """A supported algorithm name, or DIGEST_INVALID."""
    if text not in ALGORITHMS:
        raise RegistryError(ErrorCode.DIGEST_INVALID, {"algorithm": text[:32], "supported": ALGORITHMS})
    return text


def digest_of(data: bytes | bytearray | memoryview, algorithm: Algorithm = CANONICAL) -> Digest:
    """The digest of bytes that are in memory (manifests; blobs go through the pipeline)."""
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
