"""Limits of what may be stored, over a socket: said early, in the words of the specification."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from blackbox import OCI_INDEX, index
from inprocess import FRONTS, KIB, MIB, Answer, InProcess, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import digest_of
from trioreg.registry.limits import Limits
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

NAME = "some/name"
UPLOADS = f"/v2/{NAME}/blobs/uploads/"
on_both_fronts = pytest.mark.parametrize("front", FRONTS)


@asynccontextmanager
async def registry(front: str, **limits: object) -> AsyncIterator[InProcess]:
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front) as server:
            server.service.registry.guard.limits = Limits(**limits)  # type: ignore[arg-type]  # of each test
            yield server


def check(answer: Answer, status: int, code: str) -> dict[str, object]:
    """The detail of an error."""
    [error] = json.loads(answer.body)["errors"]
    assert (answer.status, error["code"]) == (status, code), answer
    detail: dict[str, object] = error["detail"]
    return detail


@on_both_fronts
async def test_a_large_blob_that_is_announced(front: str) -> None:
    """413 while the body has not been sent; the session can still be used."""
    async with registry(front, blob_max=MIB) as server:
        location = await server.start_upload()
        for method, target in (("PATCH", location), ("PUT", f"{location}?digest={digest_of(b'')}")):
            async with server.connect() as client:
                await client.send_head(method, target, {"Content-Length": str(MIB + 1)})
                assert check(await client.answer(), 413, "SIZE_INVALID") == {"limit": MIB}
        assert (await server.request("PATCH", location, bytes(KIB))).status == 202
        target = f"{UPLOADS}?digest={digest_of(bytes(MIB + 1))}"
        check(await server.request("POST", target, bytes(MIB + 1)), 413, "SIZE_INVALID")


@on_both_fronts
async def test_a_large_blob_in_chunks(front: str) -> None:
    """As docker sends it, without a word on its length: 413 when it is too much, and no session is left."""
    async with registry(front, blob_max=MIB) as server:
        location = await server.start_upload()
        async with server.connect() as client:
            await client.send_head("PATCH", location, {"Transfer-Encoding": "chunked"})
            for _ in range(5):
                await client.send(b"40000\r\n" + bytes(256 * KIB) + b"\r\n")
                await wait_all_tasks_blocked(0.01)
            check(await client.answer(), 413, "SIZE_INVALID")
        assert (await server.request("GET", location)).status == 404


@on_both_fronts
async def test_a_quota_that_is_used_up(front: str) -> None:
    """403 at POST, with the numbers; reading and deleting go on."""
    async with registry(front, quota_bytes=(("some/", 1000),), quota_tags=(("**", 1),)) as server:
        manifest = index([], annotations={"pad": "x" * 700})
        headers = {"Content-Type": OCI_INDEX}
        path = f"/v2/{NAME}/manifests/a"
        assert (await server.request("PUT", path, manifest.body, headers)).status == 201
        other = index([], annotations={"pad": "y" * 700}).body
        detail = check(await server.request("PUT", path, other, headers), 403, "DENIED")
        assert (detail["for"], detail["limit"], detail["used"]) == ("some/", 1000, len(manifest.body))
        answer = await server.request("PUT", f"/v2/{NAME}/manifests/b", manifest.body, headers)
        check(answer, 403, "DENIED")
        left = 1000 - len(manifest.body)
        target = f"{UPLOADS}?digest={digest_of(bytes(left))}"
        assert (await server.request("POST", target, bytes(left))).status == 201
        check(await server.request("POST", UPLOADS), 403, "DENIED")
        assert (await server.request("GET", path)).body == manifest.body
        assert (await server.request("DELETE", f"/v2/{NAME}/manifests/{manifest.digest}")).status == 202
        assert (await server.request("POST", UPLOADS)).status == 202


class NearlyFull(Disk):
    def free_bytes(self, path: Path) -> int:
        return 2 * MIB


@on_both_fronts
async def test_the_reserve_of_the_disk(front: str, tmp_path: Path) -> None:
    """507 at POST, or before a body that would go into it, also for a client that asks first."""
    async with serving(FilesystemStorage(tmp_path, NearlyFull(durable=False)), front) as server:
        guard = server.service.registry.guard
        guard.limits = Limits(disk_reserve=MIB)
        location = await server.start_upload()
        async with server.connect() as client:
            headers = {"Content-Length": str(2 * MIB), "Expect": "100-continue"}
            await client.send_head("PATCH", location, headers)
            if front == "quart":
                await client.answer()  # Hypercorn says 100 at once.
            check(await client.answer(), 507, "UNAVAILABLE")
        guard.limits = Limits(disk_reserve=3 * MIB)
        check(await server.request("POST", UPLOADS), 507, "UNAVAILABLE")
