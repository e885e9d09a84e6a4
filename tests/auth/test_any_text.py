"""Whatever a client writes into a header, a scope or a file, the answer is ours and no stack trace."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from auth.people import guard
from trioreg.auth.access_file import parse_access_file
from trioreg.auth.authorizer import BadCredentials
from trioreg.auth.guard import Guard
from trioreg.auth.htpasswd import parse_htpasswd
from trioreg.auth.scopes import parse_scopes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["alg", "kid", "typ", "iss", "sub", "aud", "exp", "nbf", "access", "crit", "b64"])


def part(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


JWTS = st.tuples(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON), st.binary(max_size=64)).map(
    lambda parts: f"{part(parts[0])}.{part(parts[1])}.{base64.urlsafe_b64encode(parts[2]).decode()}"
)
HEADERS = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.text(st.characters(max_codepoint=255), max_size=60).map(lambda text: f"Basic {text}"),
    st.binary(max_size=60).map(lambda data: "Basic " + base64.b64encode(data).decode()),
    st.text(st.characters(max_codepoint=255), max_size=60).map(lambda text: f"Bearer {text}"),
    st.text(max_size=20).map(lambda text: f"Bearer trioreg-robot.{text}"),
    JWTS.map(lambda text: f"Bearer {text}"),
)


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return guard(tmp_path_factory.mktemp("any"), tokens=True)


@given(header=HEADERS)
def test_any_header(access: Guard, header: str) -> None:
    """It names nobody."""

    async def ask() -> object:
        try:
            return await access.identify(header, None)
        except BadCredentials:
            return None

    assert trio.run(ask) is None


@given(texts=st.lists(st.text(max_size=40), max_size=3))
def test_any_scope(texts: list[str]) -> None:
    """What is understood can be written and read again."""
    for scope in parse_scopes(texts):
        assert parse_scopes([str(scope)]) in ([scope], [])


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file(data: bytes) -> None:
    """A file is understood or refused with a line."""
    for parse in (parse_access_file, parse_htpasswd):
        with contextlib.suppress(ValueError):
            parse(data)
