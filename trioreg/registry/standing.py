"""What an answer rests on: the links that were read for it, and whether they are what they were.

Content goes by its digest and never changes; which digest a tag names, and whether a repository has it, is
said by small files alone. Rule: who keeps an answer takes the stamps of its links before it is made, and
gives it again only while a look at them finds the same. Stamps are read anew each time, so this holds for
what any process changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TypeAlias

from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.failures import answers
from trioreg.storage import layout
from trioreg.storage.base import ObjectStore

Links: TypeAlias = tuple[str, ...]


def links_of_manifest(name: RepositoryName, reference: Tag | Digest, digest: Digest) -> Links:
    """For the manifest `digest`, found as `reference`. The stamp of its link stands for its media type."""
    link = layout.revision_link(name, digest)
    return (link,) if isinstance(reference, Digest) else (layout.tag_link(name, reference), link)


def links_of_blob(name: RepositoryName, digest: Digest) -> Links:
    return (layout.layer_link(name, digest),)


class Standing:
    """`look` at links: equal as long as none was changed; None when one is not there, or changed just now."""

    def __init__(self, objects: ObjectStore):
        self.look: Callable[[Links], Awaitable[Hashable | None]] = answers(objects.settled_stamps)
