"""Blobs, manifests, tags and referrers: what is visible where, and what an operation leaves behind."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX, OCI_MANIFEST
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.failures import answers
from trioreg.storage.base import BlobNotFound, StorageError, StorageFull, UploadBusy, UploadNotFound
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, THERE, House

LATEST = Tag("latest")


async def refused(call: Coroutine[Any, Any, object]) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await call
    return caught.value


def descriptor(data: bytes, **members: Any) -> dict[str, Any]:
    return {"mediaType": "x/y", "digest": str(digest_of(data)), "size": len(data), **members}


def image(config: bytes, *layers: bytes, **members: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config),
        "layers": [descriptor(layer) for layer in layers],
        **members,
    }
    return json.dumps(document).encode()


def index(*manifests: bytes, **members: Any) -> bytes:
    children = [descriptor(manifest, mediaType=OCI_MANIFEST) for manifest in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **members}
    return json.dumps(document).encode()


async def put(
    house: House, manifest: bytes, reference: Tag | None = None, blobs: Sequence[bytes] = ()
) -> Digest:
    for blob in blobs:
        await house.push(blob)
    digest = digest_of(manifest)
    await house.registry.manifests.put(HERE, reference or digest, None, manifest)
    return digest


class TestBlobs:
    async def test_seen_only_through_a_repository_that_links_it(self, house: House) -> None:
        """The bytes are shared, and still no secret leaks from one repository to another."""
        digest, blobs = await house.push(b"blob"), house.registry.blobs
        assert await blobs.size(HERE, digest) == 4
        for call in (blobs.size(THERE, digest), blobs.open(THERE, digest), blobs.delete(THERE, digest)):
            assert (await refused(call)).error is ErrorCode.BLOB_UNKNOWN
        assert await house.pull(digest) == b"blob"

    async def test_delete_takes_the_link_and_leaves_the_bytes(self, house: House) -> None:
        """Bytes go by garbage collection only; another repository may need them."""
        digest, blobs = await house.push(b"blob"), house.registry.blobs
        await house.push(b"blob", THERE)
        await blobs.delete(HERE, digest)
        assert (await refused(blobs.open(HERE, digest))).error is ErrorCode.BLOB_UNKNOWN
        assert (await refused(blobs.delete(HERE, digest))).error is ErrorCode.BLOB_UNKNOWN
        assert await house.pull(digest, THERE) == b"blob"
        await blobs.delete(THERE, digest)
        assert await house.stored(digest)

    async def test_a_link_without_bytes_is_no_blob(self, house: House) -> None:
        """Should a disk have lost them: 404, not 500."""
        digest, blobs = await house.push(b"blob"), house.registry.blobs
        await house.storage.delete_blob(digest)
        for call in (blobs.size(HERE, digest), blobs.open(HERE, digest)):
            assert (await refused(call)).error is ErrorCode.BLOB_UNKNOWN

    @pytest.mark.parametrize("source", [HERE, None], ids=["from", "anywhere"])
    async def test_mount(self, house: House, source: RepositoryName | None) -> None:
        """A link and no copy."""
        digest = await house.push(b"blob")
        assert await house.registry.blobs.mount(THERE, digest, source)
        assert await house.pull(digest, THERE) == b"blob"
        assert len([each async for each in house.storage.list_blobs()]) == 1

    async def test_mount_of_what_the_source_does_not_have(self, house: House) -> None:
        """No link is made, also where the bytes are known to someone else or lost."""
        digest, blobs = await house.push(b"blob"), house.registry.blobs
        assert not await blobs.mount(THERE, digest, RepositoryName("a/third"))
        assert not await blobs.mount(THERE, digest_of(b"never pushed"), None)
        await house.storage.delete_blob(digest)
        assert not await blobs.mount(THERE, digest, HERE)
        assert not await house.catalog.has_blob(THERE, digest)

    async def test_an_open_blob_outlives_its_deletion(self, house: House) -> None:
        """A download goes on to its end."""
        digest = await house.push(b"blob")
        reader = await house.registry.blobs.open(HERE, digest)
        await house.registry.blobs.delete(HERE, digest)
        await house.storage.delete_blob(digest)
        assert await reader.read(0, 100) == b"blob"
        reader.close()


class TestManifests:
    async def test_the_bytes_come_back_as_pushed(self, house: House) -> None:
        """By tag and by digest, cached or not, with the media type of the push."""
        manifest = image(b"{}", b"layer", annotations={"ä": "  kept  "}) + b"\n \n"
        digest = await put(house, manifest, LATEST, [b"{}", b"layer"])
        for each in (house, House(house.storage, cache_bytes=0)):
            for reference in (LATEST, digest):
                stored = await each.registry.manifests.get(HERE, reference)
                assert stored == (digest, OCI_MANIFEST, manifest)

    async def test_what_a_manifest_needs(self, house: House) -> None:
        """All that is missing is named, and nothing of the manifest stays behind."""
        manifest = image(b"{}", b"one", b"two", b"three")
        await house.push(b"two")
        await house.push(b"one", THERE)
        error = await refused(put(house, manifest, LATEST))
        assert error.error is ErrorCode.MANIFEST_BLOB_UNKNOWN
        missing = [str(digest_of(each)) for each in (b"{}", b"one", b"three")]
        assert error.detail == {"digests": missing}
        assert not await house.stored(digest_of(manifest))
        assert (await refused(house.registry.manifests.get(HERE, LATEST))).error is ErrorCode.MANIFEST_UNKNOWN

    async def test_a_blob_is_no_child_of_an_index(self, house: House) -> None:
        """And a manifest of another repository is none either."""
        child = image(b"{}")
        await house.push(child)
        error = await refused(put(house, index(child)))
        assert error.error is ErrorCode.MANIFEST_BLOB_UNKNOWN
        await put(house, child, None, [b"{}"])
        await put(house, index(child))

    async def test_a_need_of_another_size_than_stated(self, house: House) -> None:
        """MANIFEST_INVALID: a client that trusts the descriptor would fail later."""
        await house.push(b"{}")
        await house.push(b"layer")
        manifest = json.loads(image(b"{}", b"layer"))
        manifest["layers"][0]["size"] += 1
        error = await refused(put(house, json.dumps(manifest).encode()))
        assert error.error is ErrorCode.MANIFEST_INVALID

    async def test_a_foreign_layer_need_not_be_here(self, house: House) -> None:
        """It lives at its urls."""
        manifest = json.loads(image(b"{}", b"elsewhere"))
        manifest["layers"][0]["urls"] = ["https://example.com/layer"]
        await put(house, json.dumps(manifest).encode(), LATEST, [b"{}"])

    async def test_a_digest_of_other_bytes(self, house: House) -> None:
        """DIGEST_INVALID, in both algorithms, and nothing is stored."""
        await house.push(b"{}")
        for algorithm in ("sha256", "sha512"):
            other = digest_of(b"other", algorithm)
            error = await refused(house.registry.manifests.put(HERE, other, None, image(b"{}")))
            assert error.error is ErrorCode.DIGEST_INVALID
        assert not await house.stored(digest_of(image(b"{}")))

    async def test_nothing_was_ever_pushed_there(self, house: House) -> None:
        """NAME_UNKNOWN instead of MANIFEST_UNKNOWN, also for a list of tags."""
        manifests = house.registry.manifests
        calls: list[Coroutine[Any, Any, object]] = [
            manifests.get(THERE, LATEST),
            manifests.get(THERE, digest_of(b"")),
            manifests.delete(THERE, LATEST),
            manifests.delete(THERE, digest_of(b"")),
            manifests.tags(THERE, None, None),
        ]
        for call in calls:
            assert (await refused(call)).error is ErrorCode.NAME_UNKNOWN

    async def test_a_tag_moves(self, house: House) -> None:
        """The manifest that it left is still there by digest."""
        old = await put(house, image(b"{}", b"old"), LATEST, [b"{}", b"old"])
        new = await put(house, image(b"{}", b"new"), LATEST, [b"new"])
        assert (await house.registry.manifests.get(HERE, LATEST)).digest == new
        assert (await house.registry.manifests.get(HERE, old)).digest == old

    async def test_delete_of_a_tag(self, house: House) -> None:
        """The manifest and its other tags stay."""
        digest = await put(house, image(b"{}"), LATEST, [b"{}"])
        await put(house, image(b"{}"), Tag("other"))
        await house.registry.manifests.delete(HERE, LATEST)
        assert await house.registry.manifests.tags(HERE, None, None) == (["other"], False)
        assert (await house.registry.manifests.get(HERE, digest)).digest == digest
        error = await refused(house.registry.manifests.delete(HERE, LATEST))
        assert error.error is ErrorCode.MANIFEST_UNKNOWN

    async def test_delete_by_digest(self, house: House) -> None:
        """Its tags go with it, those of others stay; the blobs are not touched."""
        digest = await put(house, image(b"{}"), LATEST, [b"{}"])
        await put(house, image(b"{}"), Tag("same"))
        await put(house, image(b"{}", b"{}"), Tag("other"))
        await house.registry.manifests.delete(HERE, digest)
        assert await house.registry.manifests.tags(HERE, None, None) == (["other"], False)
        assert (await refused(house.registry.manifests.get(HERE, digest))).error is ErrorCode.MANIFEST_UNKNOWN
        assert await house.pull(digest_of(b"{}")) == b"{}"

    async def test_delete_goes_from_the_tag_inwards(self) -> None:
        """Tags, then the link, then the rest: a crash in between leaves no tag on nothing."""
        changes: list[str] = []

        class Told(MemoryStorage):
            async def delete(self, key: str) -> bool:
                changes.append(key)
                return await super().delete(key)

        house = House(Told())
        subject = digest_of(b"subject")
        manifest = image(b"{}", subject=descriptor(b"subject"))
        digest = await put(house, manifest, LATEST, [b"{}"])
        await house.registry.manifests.delete(HERE, digest)
        kinds = [next(kind for kind in ("revisions", "tags", "_referrers") if kind in key) for key in changes]
        assert kinds == sorted(kinds, key=["tags", "revisions", "_referrers"].index)
        assert set(kinds) == {"revisions", "tags", "_referrers"}
        assert changes[0].endswith("/link")
        assert subject.hex in changes[-1]

    async def test_push_makes_the_link_before_the_tag(self) -> None:
        """Bytes, referrer, link, tag: whoever finds the tag finds the rest."""
        changes: list[str] = []

        class Told(MemoryStorage):
            async def put(self, key: str, value: bytes) -> None:
                changes.append(key)
                await super().put(key, value)

            async def put_blob(self, digest: Digest, data: bytes) -> None:
                changes.append("bytes")
                await super().put_blob(digest, data)

        house = House(Told())
        manifest = image(b"{}", subject=descriptor(b"subject"))
        await house.push(b"{}")
        changes.clear()
        await put(house, manifest, LATEST)
        order = ["bytes", "_referrers", "revisions", "tags"]
        kinds = [next(kind for kind in order if kind in key) for key in changes]
        assert kinds == sorted(kinds, key=order.index)
        assert set(kinds) == set(order)
        links = [key for key in changes if "revisions" in key]
        assert links[-1].endswith("/link"), "the media type comes before the link"


class TestReferrers:
    async def referrers(self, house: House, subject: Digest, kind: str | None = None) -> list[dict[str, Any]]:
        index, last = await house.registry.manifests.referrers(HERE, subject, kind, None)
        assert last is None
        found: dict[str, Any] = json.loads(index)
        assert found["mediaType"] == OCI_INDEX
        return list(found["manifests"])

    async def test_of_a_missing_subject(self, house: House) -> None:
        """It may come later; until then its referrers are listed all the same."""
        subject = image(b"{}")
        attached = image(b"{}", subject=descriptor(subject), artifactType="a/sbom", annotations={"k": "v"})
        digest = await put(house, attached, None, [b"{}"])
        expected = {
            "mediaType": OCI_MANIFEST,
            "digest": str(digest),
            "size": len(attached),
            "artifactType": "a/sbom",
            "annotations": {"k": "v"},
        }
        assert await self.referrers(house, digest_of(subject)) == [expected]
        await put(house, subject)
        assert await self.referrers(house, digest_of(subject)) == [expected]

    async def test_filter(self, house: House) -> None:
        """By artifact type; an image without one counts by its config's."""
        subject = descriptor(b"subject")
        await house.push(b"{}")
        for kind in ("a/sbom", "a/signature"):
            await put(house, image(b"{}", subject=subject, artifactType=kind))
        await put(house, image(b"{}", subject=subject))
        digest = digest_of(b"subject")
        assert len(await self.referrers(house, digest)) == 3
        for kind in ("a/sbom", "a/signature", "x/y"):
            (found,) = await self.referrers(house, digest, kind)
            assert found["artifactType"] == kind
        assert await self.referrers(house, digest, "a/nothing") == []

    async def test_gone_with_its_manifest(self, house: House) -> None:
        """A deleted artifact is no referrer any more; pushed again it is one again, once."""
        attached = image(b"{}", subject=descriptor(b"subject"))
        digest = await put(house, attached, None, [b"{}"])
        await put(house, attached, LATEST)
        assert len(await self.referrers(house, digest_of(b"subject"))) == 1
        await house.registry.manifests.delete(HERE, digest)
        assert await self.referrers(house, digest_of(b"subject")) == []
        await put(house, attached)
        assert len(await self.referrers(house, digest_of(b"subject"))) == 1


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "code", "status"),
        [
            (StorageFull("full"), ErrorCode.INSUFFICIENT_STORAGE, 507),
            (StorageError("broken"), ErrorCode.UNAVAILABLE, 503),
            (UploadBusy("busy"), ErrorCode.UNAVAILABLE, 503),
            (BlobNotFound("gone"), ErrorCode.BLOB_UNKNOWN, 404),
            (UploadNotFound("gone"), ErrorCode.BLOB_UPLOAD_UNKNOWN, 404),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
    )
    async def test_each_failure_of_the_storage_has_an_answer(
        self, failure: StorageError, code: ErrorCode, status: int
    ) -> None:
        """No error of the storage passes the registry, and none tells a client about our paths."""

        @answers
        async def verb() -> None:
            raise failure

        error = await refused(verb())
        assert (error.error, error.error.status) == (code, status)
        assert error.__cause__ is failure
        assert str(failure) not in str(error.detail)

    async def test_what_is_no_failure_of_the_storage_passes(self) -> None:
        """A bug stays a bug."""

        @answers
        async def verb(error: Exception) -> None:
            raise error

        with pytest.raises(ZeroDivisionError):
            await verb(ZeroDivisionError())
        assert (await refused(verb(RegistryError(ErrorCode.DENIED)))).error is ErrorCode.DENIED
