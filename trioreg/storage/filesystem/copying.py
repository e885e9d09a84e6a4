"""A registry copied from one root to another while it runs: backup, and restore, which is the way back.

Rules: blobs never change, so one that is there with the right size is not copied again; that makes a copy
incremental, and one that was cut off goes on. Of each repository links are read first, then the bytes they
need are copied, then the links are written: so every tag of the copy leads to bytes, at any moment. Bytes
that vanished in between were deleted, and their links too: the repository is read again. Bytes are hashed
as they pass, and synced before they get their name.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from trioreg.oci.digest import Digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.manifest import Manifest, parse_manifest
from trioreg.oci.names import RepositoryName
from trioreg.storage import layout
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.disk import Disk
from trioreg.storage.filesystem.links import NO_LINKS, Links, repositories
from trioreg.storage.filesystem.script import TEMPORARY_PREFIX

_PIECE = 2**20

# Between two looks at a repository that changes while it is read.
_LOOKS = 5
_LOOK_AGAIN_SECONDS = 0.05

# Problems that are named; the rest is counted.
_NAMED = 1000


@dataclass(slots=True)
class Report:
    """What was done. `blobs` counts manifests too; `bytes` and `copied_bytes` are bytes.

    `lost`: blobs that are linked and have no good bytes. `incomplete`: manifests that need what their
    repository does not have; they are copied as they are.
    """

    repositories: int = 0
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    copied_blobs: int = 0
    copied_bytes: int = 0
    changed_links: int = 0
    removed_repositories: int = 0
    lost: int = 0
    incomplete: int = 0
    named: list[str] = field(default_factory=list)

    def name(self, text: str) -> None:
        if len(self.named) < _NAMED:
            self.named.append(text)


class Copier:
    """Copies a registry. `verify` reads again what is there already; `link` makes hard links where it can.

    `tell` is called often, with what is being done. Everything raises OSError, and blocks.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        verify: bool = False,
        link: bool = False,
        tell: Callable[[str, float], None] = lambda text, done: None,
    ):
        self.report = Report()
        self._source = source
        self._target = target
        self._verify = verify
        self._link = link
        self._tell = tell
        self._disk = Disk()
        self._good: set[bytes] = set()  # some 100 bytes of memory for each blob
        self._bad: set[Digest] = set()
        self._done = 0.0

    def run(self) -> Report:
        self._disk.make_root(self._target)
        for directory in (layout.BLOBS, layout.REPOSITORIES):
            finish(self._disk, self._disk.make_directory(self._target / directory))
        self._tidy()
        names = list(repositories(self._source))
        for number, name in enumerate(names):
            self._done = number / len(names)
            self._tell(name, self._done)
            self._repository(name)
        for name in sorted(set(repositories(self._target)) - set(names)):
            if NO_LINKS.write(self._target, name):
                self.report.removed_repositories += 1
        self._tell("syncing", 1.0)
        os.sync()
        return self.report

    def _tidy(self) -> None:
        """Remove what a copy left that was cut off."""
        for path in (self._target / layout.BLOBS).glob(f"*/*/{TEMPORARY_PREFIX}*"):
            path.unlink()

    def _repository(self, name: RepositoryName) -> None:
        report = self.report
        links = Links.read(self._source, name)
        for look in range(1, _LOOKS + 1):
            lost = [digest for digest in (*links.manifests(), *links.layers()) if not self._have(digest)]
            unmet = [] if lost else self._unmet(links)
            if not lost and not unmet:
                break
            if look < _LOOKS:
                time.sleep(look * _LOOK_AGAIN_SECONDS)
            before, links = links, Links.read(self._source, name)
            if links == before and look > 1:
                break  # It does not change: the registry itself is so.
        for digest in {digest for digest in (*links.manifests(), *links.layers()) if not self._have(digest)}:
            report.lost += 1
            report.name(f"{name}: no good bytes of {digest}, its links are left out")
            links.drop_manifest(digest)
            links.drop_layer(digest)
        for manifest, need in self._unmet(links):
            report.incomplete += 1
            report.name(f"{name}: {manifest} needs {need}, which the repository does not have")
        report.changed_links += links.write(self._target, name)
        report.repositories += 1
        report.tags += links.tags
        report.manifests += len(links.manifests())

    def _unmet(self, links: Links) -> list[tuple[Digest, Digest]]:
        """Manifests that need what the repository does not have, each with the first of that."""
        manifests, layers = set(links.manifests()), set(links.layers())
        unmet = []
        for digest in manifests:
            manifest = self._manifest(links, digest)
            if manifest is None:
                continue
            needs = [need.digest for need in manifest.blobs if need.digest not in layers]
            needs += [need.digest for need in manifest.manifests if need.digest not in manifests]
            if needs:
                unmet.append((digest, needs[0]))
        return unmet

    def _manifest(self, links: Links, digest: Digest) -> Manifest | None:
        with suppress(FileNotFoundError, RegistryError):
            return parse_manifest(self._path(digest).read_bytes(), links.media_type(digest))
        return None

    def _have(self, digest: Digest) -> bool:
        """Whether the copy has the bytes now, and they are what the digest says."""
        key = bytes.fromhex(digest.hex)[:16]  # 16 bytes tell all blobs apart, and keep the set small
        if key in self._good:
            return True
        if digest in self._bad:
            return False
        source, target = self._find(digest), self._path(digest)
        there = _size(target)
        size = _size(source) if source is not None else None
        if there is None:
            if source is None or not self._copy(digest, source, target):
                return False
        # Of two sizes one is wrong, and it may well be the source's.
        elif (self._verify or size not in (None, there)) and not self._is_good(digest, target):
            target.unlink()
            self.report.name(f"{digest} in the copy was damaged, it is copied again")
            if source is None or not self._copy(digest, source, target):
                return False
        self._good.add(key)
        self.report.blobs += 1
        self.report.bytes += _size(target) or 0
        return True

    def _find(self, digest: Digest) -> Path | None:
        """Where the source has the bytes: in their place, or where a collection looks at them."""
        for key in (layout.blob(digest), layout.blob_aside(digest), layout.blob(digest)):
            path = self._source / key
            if path.exists():
                return path
        return None

    def _path(self, digest: Digest) -> Path:
        return self._target / layout.blob(digest)

    def _copy(self, digest: Digest, source: Path, target: Path) -> bool:
        """Whether good bytes are there now; False also when they vanished, or are not what they should be."""
        unsettled = self._disk.open_directory(target.parent)
        temporary = target.parent / f"{TEMPORARY_PREFIX}{os.getpid()}"
        try:
            if not (self._link and self._hard_link(digest, source, temporary)):
                hashed = self._copy_bytes(digest, source, temporary)
                if hashed != digest.hex:
                    self._bad.add(digest)
                    temporary.unlink()
                    return False
        except FileNotFoundError:
            return False
        temporary.replace(target)
        finish(self._disk, self._disk.settle_directories(unsettled, changed=target.parent))
        self.report.copied_blobs += 1
        return True

    def _hard_link(self, digest: Digest, source: Path, temporary: Path) -> bool:
        """One file under two names; False where the filesystems differ, or the bytes are not good."""
        if self._verify and not self._is_good(digest, source):
            return False
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            self._link = False
            return False
        return True

    def _copy_bytes(self, digest: Digest, source: Path, temporary: Path) -> str:
        hashing = hashlib.new(digest.algorithm)
        buffer = memoryview(bytearray(_PIECE))
        with source.open("rb", buffering=0) as read:
            size = os.fstat(read.fileno()).st_size
            output = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
            try:
                done = 0
                while count := read.readinto(buffer):
                    hashing.update(buffer[:count])
                    self._disk.write_all(output, buffer[:count], done)
                    done += count
                    self.report.copied_bytes += count
                    self._tell(f"{digest.hex[:12]} {done >> 20} of {size >> 20} MiB", self._done)
                os.fdatasync(output)
                # A server beside us has better use for the page cache.
                os.posix_fadvise(output, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(output)
        return hashing.hexdigest()

    def _is_good(self, digest: Digest, path: Path) -> bool:
        hashing = hashlib.new(digest.algorithm)
        buffer = memoryview(bytearray(_PIECE))
        with path.open("rb", buffering=0) as read:
            done = 0
            while count := read.readinto(buffer):
                hashing.update(buffer[:count])
                done += count
                self._tell(f"checking {digest.hex[:12]}, {done >> 20} MiB", self._done)
        return hashing.hexdigest() == digest.hex


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
