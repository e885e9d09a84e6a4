"""Manifests and descriptors: what a registry must read in a manifest to keep it.

Rule: the bytes are kept as they came; this module only reads them, with typed and bounded structures,
because a hostile 4 MB document costs `json.loads` 106 ms and 93 MB. Fields we do not know are skipped.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, NamedTuple

import msgspec

from trioreg.oci.digest import Digest, parse_digest
from trioreg.oci.errors import ErrorCode, RegistryError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})

# Layers that a registry need not have: image-spec, layer.md "Non-Distributable Layers", and Docker's.
_FOREIGN_TYPES = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)

# Past any real image (docker stops at 127 layers), and it bounds what one document can make us build.
MAX_REFERENCES = 20_000

# image-spec, descriptor.md: "size int64".
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Type = Annotated[str, msgspec.Meta(max_length=255)]


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """image-spec, descriptor.md; the fields a registry reads or repeats in a referrers list."""

    media_type: _Type
    digest: str
    size: _Size
    artifact_type: _Type | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """Both shapes at once: an image manifest has `config` and `layers`, an index has `manifests`."""

    schema_version: int
    media_type: _Type | None = None
    artifact_type: _Type | None = None
    config: Descriptor | None = None
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=MAX_REFERENCES)] | None = None
    manifests: Annotated[list[Descriptor], msgspec.Meta(max_length=MAX_REFERENCES)] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Reference(NamedTuple):
    """Content that a manifest needs, with the size it states (bytes)."""

    digest: Digest
    size: int


class Manifest(NamedTuple):
    """What we keep in mind of a manifest: type, what it needs, what it refers to.

    `foreign` layers need not be here; where one was pushed all the same it belongs to the manifest.
    """

    media_type: str
    size: int
    blobs: tuple[Reference, ...]
    manifests: tuple[Reference, ...]
    foreign: tuple[Digest, ...]
    subject: Digest | None
    artifact_type: str | None
    annotations: dict[str, str] | None


_decoder = msgspec.json.Decoder(_Document)
_descriptor_decoder = msgspec.json.Decoder(Descriptor)


def parse_manifest(body: bytes, content_type: str | None) -> Manifest:
    """Read a manifest that was pushed with `content_type`. Raises MANIFEST_INVALID with the reason."""
    try:
        document = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise _invalid("nested too deep") from None
    if document.schema_version != 2:
        raise _invalid("schemaVersion must be 2")
    media_type = _media_type(document, content_type)
    if media_type in INDEX_TYPES:
        if document.manifests is None or document.layers is not None:
            raise _invalid("an index has `manifests` and no `layers`")
        needs, children = [], document.manifests
    else:
        if document.config is None or document.layers is None or document.manifests is not None:
            raise _invalid("an image manifest has `config` and `layers` and no `manifests`")
        needs = [document.config, *(layer for layer in document.layers if not is_foreign(layer))]
        children = []
    # image-spec, manifest.md: artifactType falls back to the media type of config.
    config_type = document.config.media_type if document.config else None
    return Manifest(
        media_type=media_type,
        size=len(body),
        blobs=_references(needs),
        manifests=_references(children),
        foreign=_known_digests([layer for layer in document.layers or () if is_foreign(layer)]),
        subject=_digest(document.subject) if document.subject else None,
        artifact_type=document.artifact_type or config_type,
        annotations=document.annotations,
    )


def is_foreign(layer: Descriptor) -> bool:
    """Whether a layer may be absent here: it names other places, or may not be distributed."""
    return bool(layer.urls) or layer.media_type.startswith(_FOREIGN_TYPES)


def referrer_descriptor(manifest: Manifest, digest: Digest) -> bytes:
    """The descriptor (JSON) that lists a manifest under its subject (spec.md, "Listing Referrers")."""
    return msgspec.json.encode(
        Descriptor(
            media_type=manifest.media_type,
            digest=str(digest),
            size=manifest.size,
            artifact_type=manifest.artifact_type,
            annotations=manifest.annotations,
        )
    )


def descriptor_artifact_type(descriptor: bytes, digest: Digest) -> str | None:
    """The artifact type inside a descriptor of ours. ValueError when it is torn or of something else."""
    found = _descriptor_decoder.decode(descriptor)
    # Written anew it must be the same: the decoder does not look into fields that it does not know.
    if found.digest != str(digest) or msgspec.json.encode(found) != descriptor:
        raise ValueError("not a descriptor that we wrote for this manifest")
    return found.artifact_type


def referrers_index(descriptors: list[bytes]) -> bytes:
    """An image index of descriptors that are JSON already."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [msgspec.Raw(descriptor) for descriptor in descriptors],
        }
    )


def _media_type(document: _Document, content_type: str | None) -> str:
    """spec.md, "Pushing Manifests": Content-Type and `mediaType`, when both are there, MUST agree."""
    header = content_type.partition(";")[0].strip() if content_type else ""
    if header and document.media_type and header != document.media_type:
        raise _invalid(f"mediaType is {document.media_type!r} but Content-Type is {header!r}")
    media_type = header or document.media_type
    if not media_type:
        media_type = OCI_INDEX if document.manifests is not None else OCI_MANIFEST
    if media_type not in MANIFEST_TYPES and media_type not in INDEX_TYPES:
        raise _invalid(f"media type {media_type[:255]!r} is not a manifest's")
    return media_type


def _references(descriptors: list[Descriptor]) -> tuple[Reference, ...]:
    return tuple(Reference(_digest(each), each.size) for each in descriptors)


def _known_digests(descriptors: list[Descriptor]) -> tuple[Digest, ...]:
    """Those that a blob here can have: what lives elsewhere may be named in another way."""
    found = []
    for each in descriptors:
        with suppress(RegistryError):
            found.append(parse_digest(each.digest))
    return tuple(found)


def _digest(descriptor: Descriptor) -> Digest:
    try:
        return parse_digest(descriptor.digest)
    except RegistryError:
        raise _invalid(f"bad digest {descriptor.digest[:200]!r}") from None


def _invalid(reason: str) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_INVALID, {"reason": reason})
