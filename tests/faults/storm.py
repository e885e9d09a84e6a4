"""Clients of a push storm: each pushes images, and looks whether what it was promised is true.

Repositories and blobs are common to all of them, tags and some of the images are a client's own. A client
asks by HEAD for what it needs and brings only what is not there, by mount or upload, in every form; it moves
and deletes tags and deletes images. An image is a moment (`tally`) from its push until its client has pulled
all of it, just before it goes away or at the end of the storm.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from blackbox import OCI_MANIFEST, Manifest, digest_of, index, seeded_bytes, with_query

from .tally import TALLY
from .upload import Wire

FAULT = "push amid collections that never end"
REPOSITORIES = ("storm/one", "storm/two", "storm/three/deep")
TAGS = 3  # of each client in each repository: its next image there takes the place of another
LAYERS = 120  # that all clients have in common: about half of them are needed at any time
IMAGES = 24  # that all clients have in common
SIZES = (100, 3_000, 20_000, 70_000)
LARGE = 1_200_000  # one blob in fifty: written past the page cache, in several blocks


@dataclass
class Image:
    """One that is pushed: the manifest, and what comes with it, which are all to be pulled."""

    manifest: Manifest
    blobs: list[bytes]
    children: list[Image] = field(default_factory=list)
    own: bool = False  # nobody else pushes it, so its client may delete it
    moment: ExitStack = field(default_factory=ExitStack)


class Goods:
    """What there is to push; the same for the same seed."""

    def __init__(self, seed: int):
        self.seed = seed
        choose = random.Random(f"goods-{seed}")
        self.layers = [seeded_bytes(f"{seed}-{n}", choose.choice(SIZES)) for n in range(LAYERS)]
        self.images = [_image(choose.sample(self.layers, 3)) for _ in range(IMAGES)]


class StormClient:
    """`work` makes one step; wires end and begin anew, so that each worker of the server is met."""

    def __init__(self, number: int, goods: Goods, host: str, port: int):
        self._number = number
        self._goods = goods
        self._at = (host, port)
        self._choose = random.Random(f"{goods.seed}-{number}")
        self._wire: Wire | None = None
        self._begun = 0
        self.tags: dict[tuple[str, str], Image] = {}
        self.pushed = self.skipped = self.mounted = self.uploaded = self.deleted = 0

    def work(self) -> None:
        if self._choose.random() < 0.1:
            self.close()
        name = self._choose.choice(REPOSITORIES)
        tag = f"c{self._number}-{self._choose.randrange(TAGS)}"
        kind = self._choose.random()
        if kind < 0.7:
            self._push(name, tag)
        elif kind < 0.85:
            self._untag(name, tag)
        elif kind < 0.95:
            self._delete(name, tag)
        elif (name, tag) in self.tags:
            self._check(name, tag)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, str, bytes]:
        """Status, Location, content."""
        if self._wire is None:
            self._wire = Wire(*self._at, lambda: None)
        status, answered, content = self._wire.request(method, path, body, headers)
        return status, answered.get("Location", ""), content

    # Pushing.

    def _push(self, name: str, tag: str) -> None:
        image = self._some_image()
        with ExitStack() as moment:
            moment.enter_context(TALLY.moment(FAULT))
            self._bring(name, tag, image)
            image.moment = moment.pop_all()
        self.pushed += 1
        if (before := self.tags.get((name, tag))) is not None:
            before.moment.close()  # It was pulled before its tag was moved.
        self.tags[name, tag] = image

    def _some_image(self) -> Image:
        kind = self._choose.random()
        if kind < 0.4:
            shared = self._choose.choice(self._goods.images)
            return Image(shared.manifest, shared.blobs)
        if kind < 0.9:
            return self._own_image()
        children = [self._own_image() for _ in range(2)]
        listed = index([each.manifest.descriptor for each in children])
        return Image(listed, [], children, own=True)

    def _own_image(self) -> Image:
        self._begun += 1
        size = LARGE if self._choose.random() < 0.02 else self._choose.choice(SIZES)
        unique = seeded_bytes(f"{self._goods.seed}-{self._number}-{self._begun}", size)
        made = _image([unique, *self._choose.sample(self._goods.layers, 2)])
        made.own = True
        return made

    def _bring(self, name: str, tag: str, image: Image) -> None:
        """All that the image needs, then the image. AssertionError for a promise that was broken."""
        if (name, tag) in self.tags:
            self._check(name, tag)
        for child in image.children:
            for blob in child.blobs:
                self._bring_blob(name, blob)
            self._put(name, child.manifest.digest, child.manifest)
        for blob in image.blobs:
            self._bring_blob(name, blob)
        self._put(name, tag, image.manifest)

    def _bring_blob(self, name: str, blob: bytes) -> None:
        digest = digest_of(blob)
        status, _, _ = self._request("HEAD", f"/v2/{name}/blobs/{digest}")
        assert status in (200, 404), status
        if status == 200:
            self.skipped += 1
            return
        query = ""
        if self._choose.random() < 0.5:
            source = self._choose.choice([each for each in REPOSITORIES if each != name])
            query = f"?mount={digest}&from={source}"
        elif self._choose.random() < 0.3:
            path = f"/v2/{name}/blobs/uploads/?digest={digest}"
            status, _, content = self._request("POST", path, blob)
            assert status == 201, (status, content)
            self.uploaded += 1
            return
        status, location, content = self._request("POST", f"/v2/{name}/blobs/uploads/{query}")
        if status == 201:
            self.mounted += 1
            return
        assert status == 202, (status, content)
        rest = blob
        if self._choose.random() < 0.5:
            status, location, content = self._request("PATCH", location, blob[: len(blob) // 2])
            assert status == 202, (status, content)
            rest = blob[len(blob) // 2 :]
        status, _, content = self._request("PUT", with_query(location, f"digest={digest}"), rest)
        assert status == 201, (status, content)
        self.uploaded += 1

    def _put(self, name: str, reference: str, manifest: Manifest) -> None:
        path = f"/v2/{name}/manifests/{reference}"
        kind = {"Content-Type": manifest.media_type}
        status, _, content = self._request("PUT", path, manifest.body, kind)
        assert status == 201, (path, status, content)

    # Removing, always behind a look at all that was promised.

    def _untag(self, name: str, tag: str) -> None:
        self._remove(name, tag, tag)

    def _delete(self, name: str, tag: str) -> None:
        image = self.tags.get((name, tag))
        if image is not None and image.own:
            self._remove(name, tag, image.manifest.digest)

    def _remove(self, name: str, tag: str, reference: str) -> None:
        if (name, tag) not in self.tags:
            return
        self._check(name, tag)
        status, _, content = self._request("DELETE", f"/v2/{name}/manifests/{reference}")
        assert status == 202, (status, content)
        self.tags.pop((name, tag)).moment.close()
        self.deleted += 1

    # Looking.

    def _check(self, name: str, tag: str) -> None:
        image = self.tags[name, tag]
        assert self._manifest(name, tag) == image.manifest.body, (name, tag)
        for each in (image, *image.children):
            assert self._manifest(name, each.manifest.digest) == each.manifest.body, (name, tag)
            for blob in each.blobs:
                digest = digest_of(blob)
                status, _, content = self._request("GET", f"/v2/{name}/blobs/{digest}")
                assert (status, content == blob) == (200, True), (name, tag, digest, status)

    def _manifest(self, name: str, reference: str) -> bytes:
        status, _, content = self._request("GET", f"/v2/{name}/manifests/{reference}")
        assert status == 200, (name, reference, status)
        return content

    def check_all(self) -> Iterator[Image]:
        """Pull everything that was promised and not deleted; each image that is whole."""
        for (name, tag), image in self.tags.items():
            self._check(name, tag)
            yield image
        self.close()


def _image(blobs: list[bytes]) -> Image:
    described = [{"mediaType": "a/b", "digest": digest_of(each), "size": len(each)} for each in blobs]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described[0],
        "layers": described[1:],
    }
    return Image(Manifest(OCI_MANIFEST, json.dumps(document).encode()), blobs)
