"""The verbs of a registry, without HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trioreg.pipeline.budget import ByteGate
from trioreg.pipeline.pump import Pump
from trioreg.registry.blobs import Blobs
from trioreg.registry.limits import Guard
from trioreg.registry.manifests import Manifests
from trioreg.registry.pulls import Pulls
from trioreg.registry.standing import Standing
from trioreg.registry.uploads import Uploads
from trioreg.storage.base import BlobStore, ObjectStore
from trioreg.storage.catalog import Catalog
from trioreg.storage.lru import ByteLru


class Storage(BlobStore, ObjectStore, Protocol):
    """A driver that is both; two different ones can be put together as well."""


@dataclass(frozen=True, slots=True)
class Registry:
    """`manifest_gate` lets so many bytes of manifests be in memory at once, `manifest_max` is one's limit.

    `pump` and `contents` (the cache of manifests and small blobs) are here to be looked at. `guard` holds the
    other limits of what may be stored. `pulls` notes when manifests are pulled, where `manifests` uses it.
    `standing` tells whether an answer still holds.
    """

    blobs: Blobs
    uploads: Uploads
    manifests: Manifests
    manifest_gate: ByteGate
    manifest_max: int
    pump: Pump
    contents: ByteLru[bytes]
    guard: Guard
    pulls: Pulls
    standing: Standing


def build_registry(
    blobs: BlobStore,
    objects: ObjectStore,
    pump: Pump,
    *,
    lease_wait: float,
    cache_bytes: int,
    manifest_max: int,
    manifest_gate: ByteGate,
) -> Registry:
    """Put a registry together over any pair of drivers."""
    catalog = Catalog(objects)
    contents: ByteLru[bytes] = ByteLru(cache_bytes)
    guard = Guard(blobs, objects)
    return Registry(
        blobs=Blobs(blobs, catalog, contents, guard),
        uploads=Uploads(blobs, catalog, pump, lease_wait, guard),
        manifests=Manifests(blobs, catalog, contents, guard),
        manifest_gate=manifest_gate,
        manifest_max=manifest_max,
        pump=pump,
        contents=contents,
        guard=guard,
        pulls=Pulls(objects),
        standing=Standing(objects),
    )
