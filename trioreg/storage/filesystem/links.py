"""The links of a repository as files: read so that they agree, and written so that they do.

Rule: who pushes writes first what a link needs (DESIGN, rule 6), so who reads looks first at what needs:
tags, manifests, referrers, layers. What a link needs is then there too, unless it was deleted meanwhile. Who
writes goes the other way round, and removes in the order of reading; so a copy that is cut off at any moment
has no tag without its manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from trioreg.oci.digest import Digest, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, parse_name
from trioreg.storage import layout
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.disk import Disk

_TAGS = f"{layout.MANIFESTS}/tags"
_REVISIONS = f"{layout.MANIFESTS}/revisions"
_REFERRERS = "_referrers"
# In the order of reading.
_GROUPS = (_TAGS, _REVISIONS, _REFERRERS, layout.LAYERS)
_ASIDE = ".aside-"  # as `layout.aside` names what collection is looking at


class Link(NamedTuple):
    """`time`: when it was written, in nanoseconds; retention and collection go by it."""

    content: bytes
    time: int


Group: TypeAlias = dict[str, Link]


Open: TypeAlias = Callable[[Path], BinaryIO]


def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


class Links:
    """All links of one repository, by path below it. Some 500 bytes of memory each."""

    def __init__(self, groups: dict[str, Group]):
        self._groups = groups

    @classmethod
    def read(cls, root: Path, name: RepositoryName, open_file: Open = _open) -> Links:
        base = root / layout.REPOSITORIES / name
        return cls({group: dict(_read_files(base, group, open_file)) for group in _GROUPS})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Links) and self._groups == other._groups

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def tags(self) -> int:
        return len(self._groups[_TAGS])

    def manifests(self) -> list[Digest]:
        return _digests(self._groups[_REVISIONS])

    def layers(self) -> list[Digest]:
        return _digests(self._groups[layout.LAYERS])

    def media_type(self, manifest: Digest) -> str | None:
        link = self._groups[_REVISIONS].get(f"{_REVISIONS}/{manifest.algorithm}/{manifest.hex}/media-type")
        return link.content.decode() if link else None

    def drop_manifest(self, digest: Digest) -> None:
        """Forget a manifest, with its tags and as a referrer."""
        self._groups[_TAGS] = {
            path: link for path, link in self._groups[_TAGS].items() if link.content != str(digest).encode()
        }
        for group, end in (
            (_REVISIONS, f"{digest.algorithm}/{digest.hex}/link"),
            (_REVISIONS, f"{digest.algorithm}/{digest.hex}/media-type"),
        ):
            self._groups[group].pop(f"{group}/{end}", None)
        end = f"/{digest.algorithm}/{digest.hex}"
        for path in [path for path in self._groups[_REFERRERS] if path.endswith(end)]:
            del self._groups[_REFERRERS][path]

    def drop_layer(self, digest: Digest) -> None:
        self._groups[layout.LAYERS].pop(f"{layout.LAYERS}/{digest.algorithm}/{digest.hex}/link", None)

    def write(self, root: Path, name: RepositoryName) -> int:
        """Make the repository below `root` have these links and no others; how many changed.

        Each by rename, nothing synced: whoever calls it does that for all.
        """
        there = Links.read(root, name)
        base = root / layout.REPOSITORIES / name
        disk = Disk(durable=False)
        changed = 0
        for group in reversed(_GROUPS):
            # media-type comes before the link it stands for.
            for path in sorted(self._groups[group], reverse=True):
                link, known = self._groups[group][path], there._groups[group].get(path)
                if known != link:
                    finish(disk, disk.replace_file(base / path, link.content))
                    os.utime(base / path, ns=(link.time, link.time))
                    changed += 1
        for group in _GROUPS:
            for path in sorted(there._groups[group].keys() - self._groups[group].keys()):
                _remove(base / path)
                changed += 1
        return changed


NO_LINKS = Links({group: {} for group in _GROUPS})


def repositories(root: Path) -> Iterator[RepositoryName]:
    """Every repository with links of any kind, sorted within each folder."""
    base = root / layout.REPOSITORIES
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        names = _listing(base / parent)
        if parent and any(name.startswith("_") for name in names):
            with suppress(RegistryError):
                yield parse_name(parent)
        below = [f"{parent}/{name}".lstrip("/") for name in names if not name.startswith("_")]
        waiting += sorted(below, reverse=True)


def _read_files(base: Path, below: str, open_file: Open) -> Iterator[tuple[str, Link]]:
    """Files below a folder, sorted, so that a link is read before its media type."""
    waiting = [below]
    while waiting:
        path = waiting.pop()
        try:
            link = _read_link(base, path, open_file)
        except IsADirectoryError:
            waiting += [f"{path}/{name}" for name in sorted(_listing(base / path), reverse=True)]
        else:
            if link is not None:
                yield path, link


def _read_link(base: Path, path: str, open_file: Open) -> Link | None:
    """None when it was removed. One that a collection set aside counts until that has made up its mind.

    It may be taken back between our two looks, and is then in its place again.
    """
    parent, _, name = path.rpartition("/")
    for each in (path, f"{parent}/{_ASIDE}{name}", path):
        with suppress(FileNotFoundError, NotADirectoryError), open_file(base / each) as file:
            return Link(file.read(), os.fstat(file.fileno()).st_mtime_ns)
    return None


def _listing(path: Path) -> list[str]:
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = {name.removeprefix(_ASIDE) for name in names}
    return [name for name in found if not name.startswith(".")]


def _digests(group: Group) -> list[Digest]:
    found = []
    for path in group:
        *_, algorithm, encoded, last = path.split("/")
        if last == "link":
            with suppress(RegistryError):
                found.append(parse_digest(f"{algorithm}:{encoded}"))
    return found


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
    for parent in path.parents:
        if parent.name.startswith("_"):
            return
        try:
            parent.rmdir()
        except OSError:
            return
