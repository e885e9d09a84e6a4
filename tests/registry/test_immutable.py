"""Immutable tags: set once, by whoever comes first."""

from __future__ import annotations

import pytest
import trio

from trioreg.config import load
from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.immutable import is_immutable

from .conftest import HERE, House
from .test_garbage import index

ONE, TWO = index(), index() + b" "
VERSION, LATEST = Tag("v1"), Tag("latest")


async def put(house: House, tag: Tag, data: bytes) -> None:
    await house.registry.manifests.put(HERE, tag, None, data)


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("release/a/b", "v1", True),
        ("release/a/b", "w1", False),
        ("other", "v1", False),
        ("other", "stable", True),
        ("frozen", "anything", True),
    ],
)
def test_patterns(name: str, tag: str, expected: bool) -> None:
    """Both patterns must fit; without the second every tag does. A digest is no tag."""
    text = "release/**:v*, **:stable, frozen"
    patterns = load({"tags.immutable": text}, {}, None).tags_immutable
    assert is_immutable(patterns, RepositoryName(name), Tag(tag)) is expected
    assert not is_immutable(patterns, RepositoryName("frozen"), digest_of(b""))


async def test_an_immutable_tag_is_not_moved(house: House) -> None:
    """Neither is another manifest stored; the same one again is fine; other tags move; deleted it is free."""
    house.registry.manifests.immutable = (("**", "v*"),)
    await put(house, VERSION, ONE)
    await put(house, VERSION, ONE)
    with pytest.raises(RegistryError) as refused:
        await put(house, VERSION, TWO)
    assert refused.value.error is ErrorCode.TAG_IMMUTABLE
    assert (refused.value.error.status, refused.value.error.code) == (403, "DENIED")
    assert not await house.stored(digest_of(TWO))
    await put(house, LATEST, ONE)
    await put(house, LATEST, TWO)
    assert (await house.registry.manifests.get(HERE, VERSION)).content == ONE
    await house.registry.manifests.delete(HERE, VERSION)
    await put(house, VERSION, TWO)


async def test_of_two_pushes_of_a_new_tag_one_wins(house: House) -> None:
    """The other is refused, and the tag stays with the first."""
    house.registry.manifests.immutable = (("**", "*"),)
    won: list[bytes] = []

    async def push(tag: Tag, data: bytes) -> None:
        try:
            await put(house, tag, data)
        except RegistryError as error:
            if error.error is not ErrorCode.TAG_IMMUTABLE:
                raise
        else:
            won.append(data)

    for number in range(10):
        won.clear()
        tag = Tag(f"t{number}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push, tag, ONE)
            nursery.start_soon(push, tag, TWO)
        assert len(won) == 1
        assert (await house.registry.manifests.get(HERE, tag)).content == won[0]
