"""Digests: two algorithms, lower-case hex of the right length, nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.digest import ALGORITHMS, Algorithm, Digest, digest_of, parse_algorithm, parse_digest
from trioreg.oci.errors import ErrorCode, RegistryError

BAD = [
    "",
    ":",
    "sha256",
    "sha256:",
    "a" * 64,
    f"sha256:{'a' * 63}",
    f"sha256:{'a' * 65}",
    f"sha256:{'a' * 128}",
    f"sha512:{'a' * 64}",
    f"sha256:{'A' * 64}",
    f"SHA256:{'a' * 64}",
    f"sha256:{'g' * 64}",
    f"sha256:{'a' * 64}\n",
    f"\nsha256:{'a' * 64}",
    f" sha256:{'a' * 64}",
    f"sha256:{'a' * 63}\0",
    f"sha256:{chr(0x661) * 64}",
    f"sha256::{'a' * 64}",
    f"sha256:sha256:{'a' * 64}",
    f"sha256+b64:{'a' * 64}",
    f"md5:{'a' * 32}",
    f"sha384:{'a' * 96}",
    f"blake3:{'a' * 64}",
    f"sha256:{'../' * 21}a",
]
algorithms = st.sampled_from(ALGORITHMS)


@pytest.mark.parametrize("text", BAD)
def test_refused(text: str) -> None:
    """What is no digest of ours is DIGEST_INVALID."""
    with pytest.raises(RegistryError) as refused:
        parse_digest(text)
    assert refused.value.error is ErrorCode.DIGEST_INVALID


@pytest.mark.parametrize("text", ["", "sha1", "sha384", "SHA256", "sha256 ", "../sha256", "sha256:"])
def test_unsupported_algorithm(text: str) -> None:
    """An algorithm that we cannot compute is DIGEST_INVALID, with those we can."""
    with pytest.raises(RegistryError) as refused:
        parse_algorithm(text)
    assert refused.value.error is ErrorCode.DIGEST_INVALID
    assert refused.value.detail["supported"] == ALGORITHMS


@given(algorithm=algorithms, data=st.binary())
def test_of_bytes_and_back(algorithm: Algorithm, data: bytes) -> None:
    """A digest is hashlib's, and its text parses to the same value, whatever holds the bytes."""
    digest = digest_of(data, algorithm)
    assert digest == digest_of(bytearray(data), algorithm) == digest_of(memoryview(data), algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert parse_digest(str(digest)) == digest
    assert parse_algorithm(digest.algorithm) == algorithm


hexes = st.integers(0, 2**520).map("{:064x}".format)


@given(
    text=st.text()
    | st.builds("{}:{}".format, algorithms, hexes)
    | st.builds("sha512:{:0128x}".format, st.integers(0))
)
def test_accepted_text_is_the_text_of_the_value(text: str) -> None:
    """No two texts name one digest: what is accepted comes back letter by letter."""
    try:
        digest = parse_digest(text)
    except RegistryError:
        return
    assert str(digest) == text
    assert len(digest.hex) == {"sha256": 64, "sha512": 128}[digest.algorithm]
    assert isinstance(digest, Digest)
