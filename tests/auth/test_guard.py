"""Access control on a real socket, through both fronts: who gets in, who is challenged, who is denied."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blackbox import digest_of
from inprocess import FRONTS, InProcess, serving

from auth.people import PASSWORDS, basic, bearer, guard, hashed, write_htpasswd, write_rules
from trioreg.api.token import PATH, token
from trioreg.auth.authorizer import AllowAll
from trioreg.auth.guard import Guard
from trioreg.auth.scopes import Scope
from trioreg.config import Config
from trioreg.oci.names import RepositoryName
from trioreg.server.access import change_access
from trioreg.storage.memory import MemoryStorage

BLOB = b"a layer"
DIGEST = digest_of(BLOB)
TEAM, PUBLIC, OTHER = "team/a", "public/a", "other/a"
START = "blobs/uploads/"
TAGS = "tags/list"
NOBODY: dict[str, str] = {}
EMPTY = basic("", "")  # what podman sends when it has no credentials


@asynccontextmanager
async def guarded(access: Guard, front: str) -> AsyncIterator[InProcess]:
    async with serving(MemoryStorage(), front, authorizer=access) as server:
        server.service.pages = {**server.service.pages, PATH: lambda each: token(server.service, each)}
        yield server


async def push(server: InProcess, name: str, who: dict[str, str], manifest: bool = True) -> None:
    """A blob, and a manifest that needs it, under the tag `1`."""
    answer = await server.request("POST", f"/v2/{name}/blobs/uploads/?digest={DIGEST}", BLOB, who)
    assert answer.status == 201, answer.body
    if manifest:
        kind = "application/vnd.oci.image.manifest.v1+json"
        part = {"mediaType": "application/octet-stream", "digest": DIGEST, "size": len(BLOB)}
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": part, "layers": [part]}).encode()
        answer = await server.request("PUT", f"/v2/{name}/manifests/1", body, {**who, "Content-Type": kind})
        assert answer.status == 201, answer.body


@pytest.mark.parametrize("front", FRONTS)
async def test_who_may_what(front: str, tmp_path: Path) -> None:
    """401 with a challenge for nobody and for wrong credentials, 403 for who may not, else the answer."""
    ann, eve, root = basic("ann"), basic("eve"), basic("root")
    async with guarded(guard(tmp_path), front) as server:
        for name in (TEAM, PUBLIC):
            await push(server, name, root)
        table = [
            ("GET", "/v2/", NOBODY, 401),
            ("GET", "/v2/", EMPTY, 200),
            ("GET", "/v2/", ann, 200),
            ("GET", "/v2/", basic("ann", "wrong"), 401),
            ("GET", "/v2/", basic("nobody", "wrong"), 401),
            ("GET", "/v2/", {"Authorization": "Basic !"}, 401),
            ("GET", "/v2/", {"Authorization": "Negotiate abc"}, 401),
            ("GET", "/v2/", bearer("a.b.c"), 401),
            ("GET", f"/v2/{PUBLIC}/{TAGS}", NOBODY, 200),
            ("GET", f"/v2/{PUBLIC}/{TAGS}", EMPTY, 200),
            ("GET", f"/v2/{PUBLIC}/{TAGS}", eve, 200),
            ("GET", f"/v2/{PUBLIC}/{TAGS}", basic("eve", "wrong"), 401),
            ("GET", f"/v2/{TEAM}/{TAGS}", NOBODY, 401),
            ("GET", f"/v2/{TEAM}/{TAGS}", EMPTY, 401),
            ("GET", f"/v2/{TEAM}/{TAGS}", eve, 403),
            ("GET", f"/v2/{TEAM}/{TAGS}", ann, 200),
            ("HEAD", f"/v2/{TEAM}/blobs/{DIGEST}", eve, 403),
            ("GET", f"/v2/{TEAM}/blobs/{DIGEST}", ann, 200),
            ("GET", f"/v2/{OTHER}/blobs/{DIGEST}", root, 404),
            ("POST", f"/v2/{PUBLIC}/{START}", NOBODY, 401),
            ("POST", f"/v2/{PUBLIC}/{START}", eve, 403),
            ("POST", f"/v2/{TEAM}/{START}", ann, 202),
            ("DELETE", f"/v2/{PUBLIC}/manifests/1", ann, 403),
            ("DELETE", f"/v2/{TEAM}/manifests/1", ann, 202),
            ("GET", PATH, ann, 404),
        ]
        for method, path, who, status in table:
            answer = await server.request(method, path, headers=who)
            assert answer.status == status, (method, path, who, answer)
            challenge = answer.headers.get("www-authenticate")
            assert challenge == ('Basic realm="trioreg", charset="UTF-8"' if status == 401 else None)


@pytest.mark.parametrize("front", FRONTS)
async def test_tokens(front: str, tmp_path: Path) -> None:
    """The challenge names where to get a token and for what; what one gets is good for that, and no more."""
    async with guarded(guard(tmp_path, tokens=True), front) as server:
        refused = await server.request("POST", f"/v2/{TEAM}/{START}")
        assert refused.status == 401
        assert refused.headers["www-authenticate"] == (
            f'Bearer realm="http://registry.example.com{PATH}",service="trioreg",'
            f'scope="repository:{TEAM}:pull,push"'
        )
        query = f"service=trioreg&account=ann&scope=repository%3A{TEAM}%3Apull%2Cpush"
        answer = await server.request("GET", f"{PATH}?{query}", headers=basic("ann"))
        assert answer.status == 200, answer.body
        document = json.loads(answer.body)
        assert document["token"] == document["access_token"]
        assert document["expires_in"] == 300
        ann = bearer(document["token"])
        await push(server, TEAM, ann)
        deleting = await server.request("DELETE", f"/v2/{TEAM}/manifests/1", headers=ann)
        assert deleting.status == 401
        assert 'error="insufficient_scope"' in deleting.headers["www-authenticate"]
        assert (await server.request("GET", f"/v2/{PUBLIC}/{TAGS}", headers=ann)).status == 401
        assert (await server.request("POST", f"/v2/{OTHER}/{START}", headers=ann)).status == 403
        # A token is no way to the next one.
        assert (await server.request("GET", f"{PATH}?{query}", headers=ann)).status == 401
        assert (await server.request("GET", PATH, headers=basic("ann", "wrong"))).status == 401
        assert (await server.request("DELETE", PATH, headers=basic("ann"))).status == 405


@pytest.mark.parametrize("front", FRONTS)
async def test_a_token_by_form(front: str, tmp_path: Path) -> None:
    """The password grant; other grants and forms that are too large are refused."""
    form = f"grant_type=password&service=trioreg&client_id=x&username=eve&scope=repository:{PUBLIC}:pull"
    async with guarded(guard(tmp_path, tokens=True), front) as server:
        body = (form + "&password=" + "eve%27s%3A+s%C3%ABcret").encode()
        answer = await server.request("POST", PATH, body)
        assert answer.status == 200, answer.body
        who = bearer(json.loads(answer.body)["access_token"])
        assert (await server.request("GET", "/v2/", headers=who)).status == 200
        assert (await server.request("POST", PATH, form.encode() + b"&password=no")).status == 401
        assert (await server.request("POST", PATH, b"grant_type=refresh_token")).status == 400
        assert (await server.request("POST", PATH, b"")).status == 400
        assert (await server.request("POST", PATH, b"x" * 20_000)).status == 400
        assert (await server.request("POST", PATH, b"&".join([b"a=1"] * 100))).status == 400


@pytest.mark.parametrize("front", FRONTS)
async def test_an_anonymous_token(front: str, tmp_path: Path) -> None:
    """Who shows nothing gets a token for what everyone may."""
    async with guarded(guard(tmp_path, tokens=True), front) as server:
        await push(server, PUBLIC, basic("root"))
        asked = f"scope=repository:{PUBLIC}:pull,push&scope=repository:{TEAM}:pull"
        answer = await server.request("GET", f"{PATH}?{asked}")
        who = bearer(json.loads(answer.body)["token"])
        assert (await server.request("GET", "/v2/", headers=who)).status == 200
        assert (await server.request("GET", f"/v2/{PUBLIC}/manifests/1", headers=who)).status == 200
        assert (await server.request("GET", f"/v2/{TEAM}/manifests/1", headers=who)).status == 401
        assert (await server.request("POST", f"/v2/{PUBLIC}/{START}", headers=who)).status == 401


async def test_the_catalog_shows_what_one_may_pull(tmp_path: Path) -> None:
    """Page by page: what is not shown takes no place on a page."""
    async with guarded(guard(tmp_path), "direct") as server:
        for name in ("other/x", "public/a", "public/b", "team/a", "public/c", "other/a"):
            await push(server, name, basic("root"))

        async def pages(who: dict[str, str]) -> list[list[str]]:
            found, path = [], "/v2/_catalog?n=2"
            while path:
                answer = await server.request("GET", path, headers=who)
                assert answer.status == 200
                found.append(json.loads(answer.body)["repositories"])
                path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
            return found

        assert await pages(EMPTY) == [["public/a", "public/b"], ["public/c"]]
        assert await pages(basic("ann")) == [["public/a", "public/b"], ["public/c", "team/a"]]
        assert [name for page in await pages(basic("root")) for name in page][:2] == ["other/a", "other/x"]


async def test_a_catalog_token_lists_as_its_holder(tmp_path: Path) -> None:
    """The scope that clients ask for; a token without it is told which."""
    async with guarded(guard(tmp_path, tokens=True), "direct") as server:
        await push(server, TEAM, basic("ann"))
        without = json.loads((await server.request("GET", PATH, headers=basic("ann"))).body)["token"]
        refused = await server.request("GET", "/v2/_catalog", headers=bearer(without))
        assert refused.status == 401
        assert 'scope="registry:catalog:*"' in refused.headers["www-authenticate"]
        answer = await server.request("GET", f"{PATH}?scope=registry:catalog:*", headers=basic("ann"))
        shown = await server.request("GET", "/v2/_catalog", headers=bearer(json.loads(answer.body)["token"]))
        assert json.loads(shown.body) == {"repositories": [TEAM]}


async def test_a_mount_needs_pull_on_the_source(tmp_path: Path) -> None:
    """Else it is a session, as for a blob that is not there: the answer tells nothing."""
    nowhere = digest_of(b"nowhere")
    async with guarded(guard(tmp_path), "direct") as server:
        await push(server, OTHER, basic("root"))
        await push(server, PUBLIC, basic("root"))
        for query, status in [
            (f"mount={DIGEST}&from={PUBLIC}", 201),
            (f"mount={DIGEST}&from={OTHER}", 202),
            (f"mount={nowhere}&from={OTHER}", 202),
            (f"mount={DIGEST}", 202),
            (f"mount={nowhere}", 202),
        ]:
            answer = await server.request("POST", f"/v2/{TEAM}/{START}?{query}", headers=basic("ann"))
            assert answer.status == status, query
            assert set(answer.headers) >= {"location"}


@pytest.mark.parametrize("front", FRONTS)
async def test_a_session_belongs_to_who_began_it(front: str, tmp_path: Path) -> None:
    """Another identity, or another repository, is told that there is no such session."""
    ann, root = basic("ann"), basic("root")
    async with guarded(guard(tmp_path), front) as server:
        begun = await server.request("POST", f"/v2/{TEAM}/{START}", headers=ann)
        here = begun.headers["location"]
        there = here.replace(TEAM, "team/b")
        for location, who in ((here, root), (there, ann)):
            for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={DIGEST}"), ("DELETE", "")):
                answer = await server.request(method, location + query, BLOB, who)
                assert answer.status == 404, (method, location)
                assert json.loads(answer.body)["errors"][0]["code"] == "BLOB_UPLOAD_UNKNOWN"
        assert (await server.request("PATCH", here, BLOB, ann)).status == 202
        assert (await server.request("PUT", f"{here}?digest={DIGEST}", headers=ann)).status == 201


async def test_changes_of_files_count(tmp_path: Path) -> None:
    """A password, a rule or a robot that is gone counts no longer; a broken file changes nothing."""
    access = guard(tmp_path, tokens=True)
    async with guarded(access, "direct") as server:

        async def status(who: dict[str, str], path: str = "/v2/") -> int:
            return (await server.request("GET", path, headers=who)).status

        issued = await server.request("GET", f"{PATH}?scope=repository:{PUBLIC}:pull", headers=basic("eve"))
        eve = bearer(json.loads(issued.body)["token"])
        assert await status(basic("eve")) == await status(eve) == 200
        write_htpasswd(tmp_path, {**PASSWORDS, "eve": "another"})
        assert await status(basic("eve")) == 401
        assert await status(basic("eve", "another")) == 200
        write_htpasswd(tmp_path, {"ann": PASSWORDS["ann"]})
        assert await status(eve) == 401
        (tmp_path / "htpasswd").write_text("ann:plain\n")
        assert await status(basic("ann")) == 200
        (tmp_path / "htpasswd").unlink()
        assert await status(basic("ann")) == 200
        assert await status(basic("ann"), f"/v2/{OTHER}/{TAGS}") == 403
        write_rules(tmp_path, "[[rule]]\nwho = ['ann']\nmay = ['pull']\n")
        assert await status(basic("ann"), f"/v2/{OTHER}/{TAGS}") == 404
        write_rules(tmp_path, "[[rule]]\nwho = ['ann']\nmay = ['fly']\n")
        assert await status(basic("ann"), f"/v2/{OTHER}/{TAGS}") == 404


async def test_robots(tmp_path: Path) -> None:
    """A robot does what its scopes say, by Basic, as a bearer and by token, until it is revoked."""
    access = guard(tmp_path, tokens=True)
    async with guarded(access, "direct") as server:
        robots = access._sources.robots
        assert robots is not None
        secret = robots.create("ci", ["repository:ci/**:pull,push"], None)
        by_basic, as_bearer = basic("robot+ci", secret), bearer(secret)
        issued = await server.request("GET", f"{PATH}?scope=repository:ci/a:*", headers=by_basic)
        by_token = bearer(json.loads(issued.body)["token"])
        every = (by_basic, as_bearer, by_token)
        for who in every:
            await push(server, "ci/a", who)
            assert (await server.request("POST", f"/v2/{TEAM}/{START}", headers=who)).status == 403
            assert (await server.request("DELETE", "/v2/ci/a/manifests/1", headers=who)).status == 403
        for wrong in (basic("robot+other", secret), basic("ann", secret), basic("robot+ci", secret[:-1])):
            assert (await server.request("GET", "/v2/", headers=wrong)).status == 401
        assert [each.name for each in robots.all()] == ["ci"]
        assert secret.rpartition(".")[2] not in str(list(robots.all()))  # only its hash is kept
        assert robots.revoke("ci")
        for who in every:
            assert (await server.request("GET", "/v2/", headers=who)).status == 401


@pytest.mark.parametrize("front", FRONTS)
async def test_read_only(front: str, tmp_path: Path) -> None:
    """Nobody changes a thing, and everybody is told the same."""
    async with guarded(guard(tmp_path, read_only=True), front) as server:
        for who in (NOBODY, basic("root")):
            answer = await server.request("POST", f"/v2/{TEAM}/{START}", headers=who)
            assert answer.status == 403
            assert "read-only" in answer.body.decode()


async def test_read_only_can_be_switched(tmp_path: Path) -> None:
    """On a server that has access control, and on one that has none."""
    off, on = Config(), Config(auth_read_only=True)
    for access in (guard(tmp_path), AllowAll()):
        async with serving(MemoryStorage(), "direct", authorizer=access) as server:
            for config, status in ((off, 202), (on, 403), (off, 202)):
                change_access(server.service, config)
                answer = await server.request("POST", f"/v2/{TEAM}/{START}", headers=basic("ann"))
                assert answer.status == status


async def test_a_user_who_does_not_exist_costs_a_check(tmp_path: Path) -> None:
    """The time of an answer does not tell which names there are."""
    access = guard(tmp_path)
    htpasswd = access._sources.htpasswd
    assert htpasswd is not None
    checked: list[bytes] = []

    def check(password: bytes, hashed_password: bytes) -> bool:
        checked.append(hashed_password)
        return True

    htpasswd._check_password = check
    assert not await htpasswd.check("nobody", "x")
    assert await htpasswd.check("ann", "x")
    assert len(checked) == 2
    assert checked[1] == hashed(PASSWORDS["ann"]).encode()


async def test_long_tokens_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of tokens is bounded by their length, and so are decisions about their holders."""
    monkeypatch.setattr("trioreg.auth.guard._MOST_REMEMBERED_CHARACTERS", 20_000)
    access = guard(tmp_path, tokens=True)
    ann = await access.identify(basic("ann")["Authorization"], None)
    asked = [Scope("repository", f"team/{number:0100}", frozenset({"pull"})) for number in range(32)]
    for _ in range(10):
        issued = access.issue(ann, asked)
        assert issued is not None and len(issued.text) > 5_000
        identity = await access.identify(f"Bearer {issued.text}", None)
        assert access.decide(identity, RepositoryName(asked[0].name), "pull").allowed
        kept = sum(len(key) for key in access._known)
        assert kept < 20_000 + len(issued.text) + 100
        assert len(access._decisions) <= len(access._known)
