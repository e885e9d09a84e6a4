"""Retention: which tags go, which stay and why, and that nobody's push is undone by it."""

from __future__ import annotations

import math
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aging import age

from trioreg.config import RETENTION_RULES, ConfigError, load
from trioreg.oci.digest import digest_of
from trioreg.oci.names import Tag
from trioreg.registry.pulls import DAY, Pulls, keep_noted_since, noted_since
from trioreg.registry.retention import Retained, Retention, Rule, stays
from trioreg.storage import layout
from trioreg.storage.base import StorageError
from trioreg.storage.collecting import CollectableStorage, UpkeepBusy
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, THERE, House
from .test_garbage import collect, house, index, put, store

__all__ = ["house", "store"]  # fixtures

ONE, TWO = index(), index() + b" "
NEVER = -math.inf
NOW = 100 * DAY


@pytest.mark.parametrize(
    ("rule", "set_at", "pulled", "expected"),
    [
        (Rule("**", "*", newest=1), 10 * DAY, NEVER, True),
        (Rule("**", "*", newest=1), 10 * DAY - 1, NEVER, False),
        (Rule("**", "*", newest=1, days=91), 10 * DAY - 1, NEVER, True),
        (Rule("**", "*", days=5), 95 * DAY, NEVER, False),
        (Rule("**", "*", days=5), 95 * DAY + 1, NEVER, True),
        (Rule("**", "*", days=5), 95 * DAY, NOW, False),
        (Rule("**", "*", pulled=5), 95 * DAY + 1, NEVER, True),
        (Rule("**", "*", pulled=5), 0.0, NEVER, False),
        (Rule("**", "*", pulled=5), 0.0, 95 * DAY, False),
        (Rule("**", "*", pulled=5), 0.0, 95 * DAY + 1, True),
        (Rule("**", "*", pulled=5), 0.0, math.inf, True),
        (Rule("**", "*", days=200, pulled=5), 0.0, NEVER, True),
        (Rule("**", "*", days=5), NOW + DAY, NEVER, True),
    ],
)
def test_reasons(rule: Rule, set_at: float, pulled: float, expected: bool) -> None:
    """One reason is enough; without any the tag goes. What comes from the future is new."""
    assert stays(rule, (set_at, "tag"), pulled, (10 * DAY, "tag"), NOW) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ci/**=newest 20  days 30 , **:pr-*=pulled 14", "ci/**:*=newest 20 days 30, **:pr-*=pulled 14"),
        ("a=days 1", "a:*=days 1"),
        ("a:V*=pulled 2 newest 3", "a:V*=newest 3 pulled 2"),
    ],
)
def test_rules_are_read(text: str, shown: str) -> None:
    """And shown so that they can be read again."""
    rules = load({"retention.rules": text}, {}, None).retention_rules
    assert load({"retention.rules": shown}, {}, None).retention_rules == rules
    assert RETENTION_RULES.show(rules) == shown


@pytest.mark.parametrize(
    "text",
    ["a", "a=", "=days 1", "a=days", "a=days 0", "a=days x", "a=weeks 1", "a=days 1 days 2", "A=days 1",
     "a=newest 10001", "a:*.*.*.*=days 1", "a:b:c=days 1", "a=days -1", "a=days 1 2"],
)  # fmt: skip
def test_rules_that_are_wrong(text: str) -> None:
    """Are refused whole."""
    with pytest.raises(ConfigError, match=r"retention\.rules"):
        load({"retention.rules": text}, {}, None)


async def retain(
    store: CollectableStorage, rules: str, *, keep: str = "", days: float = 0.0, dry_run: bool = False
) -> Retained:
    """As if so many days had passed."""
    config = load({"retention.rules": rules, "retention.keep": keep}, {}, None)
    return await Retention(
        store,
        config.retention_rules,
        keep=config.retention_keep,
        dry_run=dry_run,
        now=lambda: time.time() + days * DAY,
    ).run()


async def tags(house: House) -> list[str]:
    return [*(await house.catalog.tags(HERE, None, None))[0]]


async def test_old_tags_go_and_their_manifests_stay(store: CollectableStorage, house: House) -> None:
    """A dry run says the same and changes nothing; other repositories and other tags are left alone."""
    for tag in ("pr-1", "pr-2", "stable"):
        await put(house, Tag(tag), ONE)
    await put(house, Tag("pr-1"), ONE, THERE)
    rules = "some/**:pr-*=days 14"
    assert (await retain(store, rules, days=13)).removed == 0
    dry = await retain(store, rules, days=15, dry_run=True)
    assert await tags(house) == ["pr-1", "pr-2", "stable"]
    report = await retain(store, rules, days=15)
    for each in (dry, report):
        assert (each.repositories, each.tags, each.removed) == (1, 3, 2)
        assert sorted(each.names) == ["some/name:pr-1", "some/name:pr-2"]
    assert await tags(house) == ["stable"]
    assert (await house.registry.manifests.get(HERE, digest_of(ONE))).content == ONE
    assert (await house.registry.manifests.get(THERE, Tag("pr-1"))).content == ONE


async def test_the_newest_stay(store: CollectableStorage, house: House) -> None:
    """By when they were set, also again; each repository by itself; tags that are kept do not count."""
    for tag in ("a", "b", "keep", "c", "d"):
        await put(house, Tag(tag), ONE)
        await put(house, Tag(tag), ONE, THERE)
        age(store, DAY)
    await put(house, Tag("a"), ONE)
    report = await retain(store, "**=newest 2", keep="some/**:keep")
    assert await tags(house) == ["a", "d", "keep"]
    assert [*(await house.catalog.tags(THERE, None, None))[0]] == ["c", "d"]
    assert (report.removed, report.kept) == (5, 1)
    assert (await retain(store, "**=newest 2", keep="some/**:keep")).removed == 0


async def test_the_first_rule_decides(store: CollectableStorage, house: House) -> None:
    """What it lets go no other keeps; what `keep` matches stays whatever a rule says."""
    for tag in ("pr-1", "pr-keep", "v1"):
        await put(house, Tag(tag), ONE)
    await retain(store, "**:pr-*=days 1, **=days 100", keep="**:*-keep", days=2)
    assert await tags(house) == ["pr-keep", "v1"]


async def test_what_is_pulled_stays(store: CollectableStorage, house: House) -> None:
    """By any of its tags or by digest; but only when pulls were noted for that long does a tag go."""
    await put(house, Tag("used"), ONE)
    await put(house, Tag("unused"), TWO)
    rules = "**=pulled 10"
    assert (await retain(store, rules, days=50)).removed == 0
    await keep_noted_since(store, True, time.time() + 40 * DAY)
    pulls = Pulls(store, now=lambda: time.time() + 45 * DAY)
    await pulls._write(HERE, digest_of(ONE))
    assert (await retain(store, rules, days=49)).removed == 0
    report = await retain(store, rules, days=51)
    assert report.names == ["some/name:unused"]
    # A note may be a day older than the last pull.
    assert (await retain(store, rules, days=45 + 10.9)).removed == 0
    assert (await retain(store, rules, days=45 + 11.1)).names == ["some/name:used"]


async def test_noting_that_ends_begins_anew(store: CollectableStorage) -> None:
    """Since when pulls are noted is not known while no rule asks for them."""
    assert await noted_since(store) == math.inf
    await keep_noted_since(store, True, 1000.0)
    await keep_noted_since(store, True, 2000.0)
    assert await noted_since(store) == 1000.0
    await keep_noted_since(store, False, 3000.0)
    assert await noted_since(store) == math.inf
    await store.put("upkeep/pulls", b"torn")
    await keep_noted_since(store, True, 4000.0)
    assert await noted_since(store) == 4000.0


async def test_notes_of_what_is_gone_go(store: CollectableStorage, house: House) -> None:
    """And those of a manifest that is there stay, a torn one keeps its tags."""
    await put(house, Tag("latest"), ONE)
    pulls = Pulls(store)
    for each in (ONE, TWO):
        await pulls._write(HERE, digest_of(each))
    await store.put(layout.pulled(HERE, digest_of(ONE)), b"")
    await keep_noted_since(store, True, 0.0)
    assert (await retain(store, "**=pulled 1", days=500)).removed == 0
    assert await store.get(layout.pulled(HERE, digest_of(ONE))) is not None
    assert await store.get(layout.pulled(HERE, digest_of(TWO))) is None


async def test_with_untagged_the_manifest_goes_by_collection(store: CollectableStorage, house: House) -> None:
    """Retention takes the tag, collection what nothing points at any more."""
    await put(house, Tag("latest"), ONE)
    age(store, 30 * DAY)
    await retain(store, "**=days 14")
    assert (await collect(store)).manifests_removed == 0
    assert (await collect(store, untagged=True)).manifests_removed == 1


@pytest.mark.parametrize("data", [ONE, TWO], ids=["set to the same again", "moved"])
async def test_a_tag_that_is_set_between_look_and_removal_stays(
    store: CollectableStorage, house: House, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """A push comes between the look at a tag and its lock: what it set is there afterwards."""
    await put(house, Tag("latest"), ONE)
    await put(house, Tag("other"), ONE)
    age(store, 30 * DAY)
    free, moved = store.exclusive, []

    def exclusive(kind: str, key: str) -> AbstractAsyncContextManager[None]:
        return Late(key) if key == layout.tag_link(HERE, Tag("latest")) else free(kind, key)

    class Late:
        def __init__(self, key: str):
            self.lock = free("tag", key)

        async def __aenter__(self) -> None:
            monkeypatch.setattr(store, "exclusive", free)
            await put(house, Tag("latest"), data)
            moved.append(data)
            await self.lock.__aenter__()

        async def __aexit__(self, *failure: object) -> None:
            await self.lock.__aexit__(*failure)  # type: ignore[arg-type]  # passed on as they come

    monkeypatch.setattr(store, "exclusive", exclusive)
    report = await retain(store, "**=days 14")
    assert moved == [data]
    assert (report.moved, report.removed) == (1, 1)
    assert await tags(house) == ["latest"]
    assert (await house.registry.manifests.get(HERE, Tag("latest"))).content == data


async def test_one_at_a_time(store: CollectableStorage, tmp_path: Path) -> None:
    """A second run is refused."""
    if not isinstance(store, MemoryStorage):
        (tmp_path / "locks").mkdir(exist_ok=True)
    with store.alone("retain"), pytest.raises(UpkeepBusy):
        await retain(store, "**=days 1")


async def test_a_torn_tag_stays(store: CollectableStorage, house: House) -> None:
    """Nobody knows what it pointed at: the next push, or verify, has to do with it."""
    await store.put(layout.tag_link(HERE, Tag("torn")), b"sha256:12")
    assert (await retain(store, "**=days 1", days=50)).removed == 0


async def test_a_failure_of_the_disk_ends_the_run(
    store: CollectableStorage, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a StorageError and no tag that is half removed; the next run can be."""
    await put(house, Tag("latest"), ONE)

    async def delete(key: str) -> bool:
        raise StorageError("no")

    with monkeypatch.context() as broken:
        broken.setattr(store, "delete", delete)
        with pytest.raises(StorageError):
            await retain(store, "**=days 1", days=50)
    assert await tags(house) == ["latest"]
    assert (await retain(store, "**=days 1", days=50)).removed == 1
