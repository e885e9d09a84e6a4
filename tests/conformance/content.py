"""What the tests push: the same kinds of content as the official suite, each with fresh bytes.

Rule: a `Content` is complete. Its manifests are in the order in which they can be pushed, and it
states which descriptors a referrers list must hold afterwards.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import secrets
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blackbox import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    descriptor,
    digest_of,
)

OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCTETS = "application/octet-stream"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
SBOM = "application/vnd.example.sbom.v1"
SIGNATURE = "application/vnd.example.signature.v1"

PLATFORMS = ({"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"})

Json = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    body: bytes
    media_type: str
    digest: str
    tag: str | None

    @property
    def descriptor(self) -> Json:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body)}

    @property
    def subject(self) -> str | None:
        subject: Json | None = json.loads(self.body).get("subject")
        return subject["digest"] if subject else None


@dataclass
class Content:
    """Blobs, manifests and the referrers they make, all named by one algorithm."""

    algorithm: str = "sha256"
    with_data: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    referrers: dict[str, list[Json]] = field(default_factory=dict)

    def blob(self, data: bytes, media_type: str) -> Json:
        """Keep a blob; its descriptor."""
        made = descriptor(media_type, data, self.algorithm)
        if self.with_data:
            made["data"] = base64.b64encode(data).decode()
        self.blobs[made["digest"]] = data
        return made

    def layer(self, compressed: bool = True) -> Json:
        plain = tar_of(b"lucky number " + secrets.token_hex(16).encode())
        if compressed:
            return self.blob(gzip.compress(plain), OCI_LAYER_GZIP)
        return self.blob(plain, OCI_LAYER)

    def config(self, layers: int, **more: Any) -> Json:
        diff_ids = [digest_of(secrets.token_bytes(8)) for _ in range(layers)]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        document = {**PLATFORMS[0], "rootfs": rootfs, "author": secrets.token_hex(8), **more}
        return self.blob(json.dumps(document).encode(), OCI_CONFIG)

    def image(self, layers: int = 2, compressed: bool = True, **more: Any) -> Manifest:
        described = [self.layer(compressed) for _ in range(layers)]
        return self.manifest(config=self.config(layers), layers=described, **more)

    def artifact(self, kind: str = SBOM, layer_type: str = SBOM, **more: Any) -> Manifest:
        return self.manifest(
            config=self.blob(b"{}", OCI_EMPTY),
            layers=[self.blob(secrets.token_bytes(2048), layer_type)],
            artifactType=kind,
            **more,
        )

    def index(self, children: list[Manifest], tag: str | None = None, **fields: Any) -> Manifest:
        platforms = [{"platform": platform} for platform in PLATFORMS] + [{}] * len(children)
        manifests = [
            {**child.descriptor, **platform} for child, platform in zip(children, platforms, strict=False)
        ]
        return self.manifest(media_type=OCI_INDEX, tag=tag, manifests=manifests, **fields)

    def manifest(self, media_type: str = OCI_MANIFEST, tag: str | None = None, **fields: Any) -> Manifest:
        """Keep a manifest of these fields, and what its subject will list."""
        document = {"schemaVersion": 2, "mediaType": media_type, **fields}
        body = json.dumps(document).encode()
        made = Manifest(body, media_type, digest_of(body, self.algorithm), tag)
        self.manifests.append(made)
        if made.subject:
            listed = made.descriptor
            artifact_type = fields.get("artifactType") or fields.get("config", {}).get("mediaType")
            if artifact_type:
                listed["artifactType"] = artifact_type
            if "annotations" in fields:
                listed["annotations"] = fields["annotations"]
            self.referrers.setdefault(made.subject, []).append(listed)
        return made


def tar_of(file: bytes) -> bytes:
    """A tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("lucky.txt")
        member.size = len(file)
        archive.addfile(member, io.BytesIO(file))
    return buffer.getvalue()


def _notes() -> dict[str, str]:
    return {"org.example.hello": "conformance", f"org.example.{secrets.token_hex(4)}": "unique"}


def _image(content: Content) -> None:
    content.image(tag="image")


def _image_uncompressed(content: Content) -> None:
    content.image(tag="image-uncompressed", compressed=False)


def _large_manifest(content: Content) -> None:
    notes = {f"large-annotation-{n}": "A" * 10_000 for n in range(390)}
    content.image(tag="large-manifest", annotations=notes)


def _index(content: Content) -> None:
    content.index([content.image(), content.image()], tag="index")


def _nested_index(content: Content) -> None:
    inner = [content.index([content.image(), content.image()]) for _ in range(2)]
    content.index(inner, tag="index-of-index")


def _empty_index(content: Content) -> None:
    content.index([], tag="empty-index")


def _artifact(content: Content) -> None:
    content.artifact(tag="artifact")


def _artifact_index(content: Content) -> None:
    children = [content.artifact(), content.artifact()]
    content.index(children, tag="artifact-index", artifactType=SBOM)


def _artifact_without_layers(content: Content) -> None:
    empty = content.blob(b"{}", OCI_EMPTY)
    content.manifest(config=empty, layers=[empty], artifactType=SBOM, tag="artifact-empty")


def _artifacts_with_subject(content: Content) -> None:
    subject = content.image(tag="image").descriptor
    content.image(subject=subject)
    content.artifact(SBOM, subject=subject, annotations=_notes(), tag="tagged-artifact1")
    content.artifact(SIGNATURE, OCTETS, subject=subject, annotations=_notes(), tag="tagged-artifact2")


def _index_with_subject(content: Content) -> None:
    subject = content.index([content.image(), content.image()], tag="index").descriptor
    children = [content.artifact(subject=subject), content.artifact(subject=subject)]
    content.index(children, tag="tagged-artifact", artifactType=SBOM, annotations=_notes(), subject=subject)
    content.index(children, annotations=_notes(), subject=subject)


def _missing_subject(content: Content) -> None:
    absent = descriptor(OCI_MANIFEST, secrets.token_bytes(123), content.algorithm)
    content.artifact(subject=absent, annotations=_notes(), tag="tagged-artifact")


def _data_field(content: Content) -> None:
    content.with_data = True
    content.image(tag="data-field")


def _foreign_layers(content: Content) -> None:
    layers = []
    for media_type in (f"{OCI_FOREIGN}+gzip", OCI_FOREIGN, OCI_LAYER_GZIP):
        absent = descriptor(media_type, secrets.token_bytes(64), content.algorithm)
        layers.append({**absent, "urls": [f"https://store.example.com/{absent['digest']}"]})
    layers.append(content.layer())
    content.manifest(config=content.config(4), layers=layers, tag="foreign-layers")


def _custom_fields(content: Content) -> None:
    custom: Json = {f"org.{secrets.token_hex(8)}": {"any": ["thing", 1, None]}}
    children = [
        content.manifest(config=content.config(1, **custom), layers=[content.layer()], **custom)
        for _ in range(2)
    ]
    content.index(children, tag="custom-fields", **custom)


def _no_layers(content: Content) -> None:
    content.image(layers=0, tag="no-layers")


def _empty_blob(content: Content) -> None:
    content.manifest(config=content.config(1), layers=[content.blob(b"", OCTETS)], tag="empty-blob")


def _docker_image(content: Content, tag: str | None = "docker") -> Manifest:
    config = {**content.config(1), "mediaType": DOCKER_CONFIG}
    layer = {**content.layer(), "mediaType": DOCKER_LAYER}
    foreign = descriptor(DOCKER_FOREIGN, secrets.token_bytes(64), content.algorithm)
    return content.manifest(DOCKER_MANIFEST, tag, config=config, layers=[layer, foreign])


def _docker_list(content: Content) -> None:
    children = [_docker_image(content, None) for _ in PLATFORMS]
    manifests = [
        {**child.descriptor, "platform": platform}
        for child, platform in zip(children, PLATFORMS, strict=True)
    ]
    content.manifest(DOCKER_LIST, "docker-list", manifests=manifests)


_KINDS: dict[str, Callable[[Content], object]] = {
    "image": _image,
    "image-uncompressed": _image_uncompressed,
    "large-manifest": _large_manifest,
    "index": _index,
    "nested-index": _nested_index,
    "empty-index": _empty_index,
    "artifact": _artifact,
    "artifact-index": _artifact_index,
    "artifact-without-layers": _artifact_without_layers,
    "artifacts-with-subject": _artifacts_with_subject,
    "index-with-subject": _index_with_subject,
    "missing-subject": _missing_subject,
    "data-field": _data_field,
    "foreign-layers": _foreign_layers,
    "custom-fields": _custom_fields,
    "no-layers": _no_layers,
    "empty-blob": _empty_blob,
    "docker-image": _docker_image,
    "docker-list": _docker_list,
}
KINDS = tuple(_KINDS)


def content_of(kind: str, algorithm: str = "sha256") -> Content:
    """Fresh content of one of `KINDS`."""
    content = Content(algorithm)
    _KINDS[kind](content)
    return content
