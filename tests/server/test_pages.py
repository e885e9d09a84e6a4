"""Long lists come in pages of a bounded size, and who follows the links has seen every entry once."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import trio
from blackbox import OCI_INDEX, digest_of, index
from inprocess import FRONTS, Answer, InProcess, serving

from trioreg.api import manifests as api
from trioreg.registry import manifests as registry
from trioreg.storage.memory import MemoryStorage

NAME = "some/name"
SUBJECT = {"mediaType": OCI_INDEX, "digest": digest_of(b"never pushed"), "size": 1}
REFERRERS = f"/v2/{NAME}/referrers/{SUBJECT['digest']}"
KINDS = ["application/spdx+json", "text/x-a&b=c"]
LINK = re.compile(r'<(/v2/[^<>]*)>; rel="next"')


@asynccontextmanager
async def registry_on(front: str) -> AsyncIterator[InProcess]:
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front) as server:
            yield server


async def push(server: InProcess, reference: str, **members: Any) -> str:
    manifest = index([], **members)
    algorithm = reference if reference in ("sha256", "sha512") else "sha256"
    digest = digest_of(manifest.body, algorithm)
    target = f"/v2/{NAME}/manifests/{digest if reference == algorithm else reference}"
    answer = await server.request("PUT", target, manifest.body, {"Content-Type": manifest.media_type})
    assert answer.status == 201, answer.body
    return digest


async def pages(server: InProcess, target: str) -> list[Answer]:
    """The answer and all that its link leads to."""
    found = []
    while target:
        answer = await server.request("GET", target)
        assert answer.status == 200, answer.body
        found.append(answer)
        link = LINK.fullmatch(answer.headers["link"]) if "link" in answer.headers else None
        assert "link" not in answer.headers or link is not None
        target = link[1] if link else ""
        assert len(found) < 100, "the links go round"
    return found


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("kind", [None, *KINDS, "application/unheard-of"])
@pytest.mark.parametrize("size", [1, 1000, 10**6])
async def test_referrers(front: str, kind: str | None, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its kind once, under both algorithms of digests; a page has at least one, and not much more."""
    monkeypatch.setattr(registry, "_REFERRERS_BYTES", size)
    async with registry_on(front) as server:
        wanted = []
        for number in range(12):
            members = {"artifactType": KINDS[number % 2], "subject": SUBJECT}
            algorithm = ["sha256", "sha256", "sha512"][number % 3]
            digest = await push(server, algorithm, **members, annotations={"number": str(number)})
            if kind in (None, members["artifactType"]):
                wanted.append(digest)
        asked = REFERRERS + (f"?artifactType={quote(kind, safe='')}" if kind else "")
        answers = await pages(server, asked)
        found = []
        for answer in answers:
            assert answer.headers["content-type"] == OCI_INDEX
            assert ("oci-filters-applied" in answer.headers) == (kind is not None)
            entries = json.loads(answer.body)["manifests"]
            assert len(entries) == 1 or sum(len(json.dumps(each)) for each in entries) < 1.2 * size
            found += [each["digest"] for each in entries]
        assert sorted(found) == sorted(wanted)
        assert len(set(found)) == len(found)
        assert len(answers) == {1: max(1, len(wanted)), 10**6: 1}.get(size, len(answers))
        assert size != 1000 or not wanted or 1 < len(answers) < len(wanted)


async def test_a_referrer_goes_between_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place to go on from need not be there any more."""
    monkeypatch.setattr(registry, "_REFERRERS_BYTES", 1)
    async with registry_on("direct") as server:
        digests = sorted(
            [
                await push(server, "sha256", subject=SUBJECT, annotations={"number": str(number)})
                for number in range(3)
            ]
        )
        first = await server.request("GET", REFERRERS)
        assert [each["digest"] for each in json.loads(first.body)["manifests"]] == digests[:1]
        assert (await server.request("DELETE", f"/v2/{NAME}/manifests/{digests[0]}")).status == 202
        link = LINK.fullmatch(first.headers["link"])
        assert link is not None
        rest = [json.loads(answer.body)["manifests"] for answer in await pages(server, link[1])]
        assert [entry["digest"] for page in rest for entry in page] == digests[1:]


@pytest.mark.parametrize("last", ["", "x", "sha256:", "sha256:" + "g" * 64, "md5:" + "0" * 32])
async def test_referrers_after_what_is_no_digest(last: str) -> None:
    """Refused as any other digest that is none."""
    async with registry_on("direct") as server:
        answer = await server.request("GET", f"{REFERRERS}?last={last}")
        assert answer.status == 400
        assert json.loads(answer.body)["errors"][0]["code"] in ("DIGEST_INVALID", "UNSUPPORTED")


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("asked", [None, 0, 2, 3, 4, 1000])
async def test_tags(front: str, asked: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number, or with one that is too large, a page has the most that one may have."""
    monkeypatch.setattr(api, "_LARGEST_PAGE", 3)
    async with registry_on(front) as server:
        names = [f"v{number}" for number in range(8)]
        for name in names:
            await push(server, name)
        where = f"/v2/{NAME}/tags/list" + ("" if asked is None else f"?n={asked}")
        found = [json.loads(answer.body)["tags"] for answer in await pages(server, where)]
        if asked == 0:
            assert found == [[]]
            return
        size = min(3, asked or 3)
        assert found == [names[at : at + size] for at in range(0, len(names), size)]


@pytest.mark.parametrize("front", FRONTS)
async def test_catalogue(front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the names of repositories."""
    monkeypatch.setattr(api, "_LARGEST_PAGE", 3)
    async with registry_on(front) as server:
        names = [f"team/part{number}" for number in range(7)]
        manifest = index([])
        for name in names:
            target = f"/v2/{name}/manifests/latest"
            pushed = await server.request("PUT", target, manifest.body, {"Content-Type": OCI_INDEX})
            assert pushed.status == 201
        for where in ("/v2/_catalog", "/v2/_catalog?n=500"):
            found = [json.loads(answer.body)["repositories"] for answer in await pages(server, where)]
            assert found == [names[0:3], names[3:6], names[6:]]
