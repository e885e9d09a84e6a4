"""Clients that push, mount, tag and delete at random, and write down what they were promised.

`Facts` is what must be true of one client's repositories, seen from outside. While a request is on its way
both before and after are true; the answer decides; a kill leaves both until somebody has looked. Each client
has repositories of its own, so nobody else changes its facts, and blobs in common with the others, so that
they meet on the same files. A collection may take what no image needs, once it is old: such a blob is there
or not, until it is promised anew.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blackbox import OCI_MANIFEST, Manifest, digest_of

from .upload import Push, Wire

Fact = tuple[str, str, str]  # "blob", "manifest" or "tag"; repository; digest or tag
TAGS = ("latest", "v1", "v2")
COMMON = 12  # blobs that all clients push, of which each finds some there already


class Facts:
    """What each name may show: the digest behind it, None for nothing."""

    def __init__(self) -> None:
        self.may: dict[Fact, set[str | None]] = defaultdict(lambda: {None})
        self.unlooked: set[Fact] = set()
        # Blobs promised since time last passed: no collection may take them, whoever needs them.
        self.fresh: set[Fact] = set()

    def here(self, kind: str, repository: str) -> list[str]:
        """Names that are certainly there."""
        return sorted(
            name
            for (each, where, name), may in self.may.items()
            if (each, where) == (kind, repository) and len(may) == 1 and None not in may
        )

    @contextmanager
    def becoming(self, after: dict[Fact, str | None]) -> Iterator[Callable[[], None]]:
        """Until what is yielded is called, before and after are both true."""
        for fact, value in after.items():
            self.may[fact] = {*self.may[fact], value}
            self.unlooked.add(fact)

        def became() -> None:
            for fact, value in after.items():
                self.may[fact] = {value}
                if fact[0] == "blob":
                    self.fresh.add(fact)

        yield became

    def collectable(self, repository: str, needed: set[str]) -> None:
        """What no manifest needs and is not fresh may be collected from now on: there, or not."""
        for fact, may in self.may.items():
            if fact[:2] == ("blob", repository) and fact[2] not in needed and fact not in self.fresh:
                may.add(None)


class Client:
    """Goes on for ever; what a connection that is cut raises ends `run`, and the next one goes on."""

    def __init__(self, number: int, seed: int):
        self._choose = random.Random(f"{seed}-{number}")
        self._seed = seed
        self._number = number
        self._begun = 0
        self.repositories = [f"kill/{number}/{letter}" for letter in "abc"]
        self.facts = Facts()
        self.push: Push | None = None
        self.done = 0
        self._manifests: dict[str, Manifest] = {}
        self._subjects: dict[str, str] = {}

    def run(self, wire: Wire, most: int | None = None) -> None:
        """At most so many steps, without a limit until the server is gone."""
        while most is None or most > 0:
            if self.push is not None:
                self._push(wire)
            else:
                steps = [self._begin] * 3 + [self._image] * 3 + [self._mount, self._untag]
                steps += [self._delete_blob, self._delete_manifest]
                self._choose.choice(steps)(wire, self._choose.choice(self.repositories))
            self.done += 1
            most = None if most is None else most - 1

    def _begin(self, wire: Wire, repository: str) -> None:
        self._begun += 1
        common = self._choose.random() < 0.3
        seed = f"{self._seed}-{self._number}-{self._begun}"
        chosen = self._choose
        if common:
            # The same bytes for every client that has this number, hence the size from the number too.
            seed = f"{self._seed}-common-{self._choose.randrange(COMMON)}"
            chosen = random.Random(seed)
        self.push = Push(repository, seed, chosen)
        self._push(wire)

    def _push(self, wire: Wire) -> None:
        assert self.push is not None
        fact = ("blob", self.push.name, self.push.digest)
        with self.facts.becoming({fact: self.push.digest}) as became:
            self.push.run(wire)
            became()
        self.push = None

    def _image(self, wire: Wire, repository: str) -> None:
        """An image of blobs that are there, under a tag; some are attached to another image."""
        blobs = self.facts.here("blob", repository)
        if not blobs:
            return
        self._begun += 1
        layers = self._choose.sample(blobs, min(len(blobs), 3))
        manifest = self._manifest(wire, repository, layers)
        tag = self._choose.choice(TAGS)
        after: dict[Fact, str | None] = {
            ("manifest", repository, manifest.digest): manifest.digest,
            ("tag", repository, tag): manifest.digest,
        }
        with self.facts.becoming(after) as became:
            status, _, body = wire.request(
                "PUT", f"/v2/{repository}/manifests/{tag}", manifest.body, {"Content-Type": OCI_MANIFEST}
            )
            assert status == 201, (status, body)
            became()

    def _manifest(self, wire: Wire, repository: str, layers: list[str]) -> Manifest:
        described = []
        for digest in layers:
            status, headers, _ = wire.request("HEAD", f"/v2/{repository}/blobs/{digest}")
            assert status == 200, (repository, digest, status)
            described.append({"mediaType": "a/b", "digest": digest, "size": int(headers["Content-Length"])})
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described[0],
            "layers": described[1:],
            "annotations": {"number": f"{self._number}-{self._begun}"},
        }
        there = self.facts.here("manifest", repository)
        subject = (
            self._manifests[self._choose.choice(there)] if there and self._choose.random() < 0.3 else None
        )
        if subject is not None:
            document["subject"] = subject.descriptor
        made = Manifest(OCI_MANIFEST, json.dumps(document).encode())
        self._manifests[made.digest] = made
        if subject is not None:
            self._subjects[made.digest] = subject.digest
        return made

    def _mount(self, wire: Wire, repository: str) -> None:
        source = self._choose.choice([each for each in self.repositories if each != repository])
        blobs = self.facts.here("blob", source)
        if not blobs:
            return
        digest = self._choose.choice(blobs)
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        with self.facts.becoming({("blob", repository, digest): digest}) as became:
            status, _, body = wire.request("POST", path)
            assert status == 201, (status, body)
            became()

    def _untag(self, wire: Wire, repository: str) -> None:
        tags = self.facts.here("tag", repository)
        if tags:
            tag = self._choose.choice(tags)
            self._delete(wire, f"/v2/{repository}/manifests/{tag}", {("tag", repository, tag): None})

    def _delete_manifest(self, wire: Wire, repository: str) -> None:
        manifests = self.facts.here("manifest", repository)
        if manifests:
            digest = self._choose.choice(manifests)
            gone: dict[Fact, str | None] = {("manifest", repository, digest): None}
            for tag in TAGS:
                if digest in self.facts.may["tag", repository, tag]:
                    assert len(self.facts.may["tag", repository, tag]) == 1
                    gone["tag", repository, tag] = None
            # Once the request is on its way, what only this image needed may go.
            self.facts.collectable(repository, self._needed(repository, but=digest))
            self._delete(wire, f"/v2/{repository}/manifests/{digest}", gone)

    def _delete_blob(self, wire: Wire, repository: str) -> None:
        """One that no manifest needs: what else should its image be."""
        needed = self._needed(repository)
        free = [digest for digest in self.facts.here("blob", repository) if digest not in needed]
        if free:
            digest = self._choose.choice(free)
            self._delete(wire, f"/v2/{repository}/blobs/{digest}", {("blob", repository, digest): None})

    def _delete(self, wire: Wire, path: str, after: dict[Fact, str | None]) -> None:
        with self.facts.becoming(after) as became:
            status, _, body = wire.request("DELETE", path)
            assert status == 202, (path, status, body)
            became()

    def time_passed(self) -> None:
        """All that was pushed is as old as a collection wants it."""
        self.facts.fresh.clear()
        for repository in self.repositories:
            self.facts.collectable(repository, self._needed(repository))

    def _needed(self, repository: str, but: str = "") -> set[str]:
        """Blobs of the images that are certainly there."""
        manifests = [digest for digest in self.facts.here("manifest", repository) if digest != but]
        return {each["digest"] for digest in manifests for each in self._blobs_of(self._manifests[digest])}

    @staticmethod
    def _blobs_of(manifest: Manifest) -> list[dict[str, str]]:
        document = json.loads(manifest.body)
        return [document["config"], *document["layers"]]

    # Looking.

    def check(self, wire: Wire, *, everything: bool) -> None:
        """Each fact as the registry shows it now; what was in doubt is known afterwards."""
        for fact in self._of_kind(everything, "manifest"):
            self._look_at(wire, fact)
        # What an image needs that is there must be there, whatever was in doubt before.
        for repository in self.repositories:
            for digest in self._needed(repository):
                self.facts.may["blob", repository, digest] = {digest}
                self.facts.unlooked.add(("blob", repository, digest))
        for fact in self._of_kind(everything, "blob", "tag"):
            self._look_at(wire, fact)
        self.facts.unlooked.clear()
        for repository in self.repositories:
            self._check_lists(wire, repository)

    def _of_kind(self, everything: bool, *kinds: str) -> list[Fact]:
        return sorted(
            fact for fact in (self.facts.may if everything else self.facts.unlooked) if fact[0] in kinds
        )

    def _look_at(self, wire: Wire, fact: Fact) -> None:
        found = self._look(wire, fact)
        assert found in self.facts.may[fact], (fact, found, self.facts.may[fact])
        if fact[0] != "blob" or fact in self.facts.fresh or found is None or len(self.facts.may[fact]) == 1:
            self.facts.may[fact] = {found}

    def _look(self, wire: Wire, fact: Fact) -> str | None:
        kind, repository, name = fact
        path = f"/v2/{repository}/{'blobs' if kind == 'blob' else 'manifests'}/{name}"
        status, headers, body = wire.request("GET", path)
        if status == 404:
            return None
        assert status == 200, (fact, status, body)
        found = digest_of(body)
        assert headers["Docker-Content-Digest"] == found
        return found

    def _check_lists(self, wire: Wire, repository: str) -> None:
        status, _, body = wire.request("GET", f"/v2/{repository}/tags/list")
        listed = json.loads(body)["tags"] if status == 200 else []
        assert listed == self.facts.here("tag", repository), repository
        there = set(self.facts.here("manifest", repository))
        for subject in {self._subjects[each] for each in there if each in self._subjects}:
            status, _, body = wire.request("GET", f"/v2/{repository}/referrers/{subject}")
            named = {each["digest"] for each in json.loads(body)["manifests"]}
            assert named == {each for each in there if self._subjects.get(each) == subject}, subject
