"""Images made on the spot: seeded tar layers, right configurations, OCI layout directories.

The rule: everything is generated from a seed, nothing is downloaded, and every digest a client
computes for itself (layers, `diff_ids`, configuration, manifest) is right.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blackbox import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Registry,
    compressed,
    descriptor,
    digest_of,
    index,
)

GZIP_MAGIC = b"\x1f\x8b"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def platform_image(
    layers: Sequence[tuple[bytes, bool]], architecture: str = "amd64", **members: Any
) -> Manifest:
    """An OCI image of tar layers, each with whether it travels gzipped."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar, _ in layers]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    encoded = json.dumps(config).encode()
    blobs = [compressed(tar) if gzipped else tar for tar, gzipped in layers]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, encoded),
        "layers": [descriptor(_layer_type(blob), blob) for blob in blobs],
        **members,
    }
    return Manifest(OCI_MANIFEST, json.dumps(document).encode(), (encoded, *blobs))


def platform_index(images: Mapping[str, Manifest]) -> Manifest:
    """An OCI index of one image per architecture."""
    return index(
        {**image.descriptor, "platform": {"os": "linux", "architecture": architecture}}
        for architecture, image in images.items()
    )


def write_layout(directory: Path, root: Manifest, children: Sequence[Manifest] = ()) -> str:
    """Write an OCI layout holding `root` as `latest`; the reference skopeo wants."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    contents = [manifest.body for manifest in (root, *children)]
    contents += [blob for manifest in (root, *children) for blob in manifest.blobs]
    for content in contents:
        (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
    named: Descriptor = {
        **root.descriptor,
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    top = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [named]}
    (directory / "index.json").write_text(json.dumps(top))
    return f"oci:{directory}:latest"


def assert_holds(registry: Registry, repository: str, reference: str, manifest: Manifest) -> None:
    """The registry gives this manifest, byte for byte and as its type, and all its blobs."""
    path = f"/v2/{repository}/manifests/{reference}"
    answer = registry.request("GET", path, headers={"Accept": manifest.media_type})
    assert answer.status == 200
    assert answer.body == manifest.body
    assert answer.headers["Content-Type"] == manifest.media_type
    assert answer.headers["Docker-Content-Digest"] == manifest.digest
    for blob in manifest.blobs:
        assert_blob(registry, repository, digest_of(blob), len(blob))


def assert_blob(registry: Registry, repository: str, digest: str, size: int) -> bytes:
    """The registry gives a blob of this digest and size; its bytes."""
    answer = registry.request("GET", f"/v2/{repository}/blobs/{digest}")
    assert answer.status == 200
    assert len(answer.body) == size
    assert digest_of(answer.body) == digest
    return answer.body


def manifest_of(registry: Registry, repository: str, reference: str) -> dict[str, Any]:
    """The JSON of a manifest of any type that the registry gives."""
    answer = registry.request("GET", f"/v2/{repository}/manifests/{reference}")
    assert answer.status == 200
    document: dict[str, Any] = answer.json()
    return document


def _layer_type(blob: bytes) -> str:
    return OCI_LAYER_GZIP if blob.startswith(GZIP_MAGIC) else OCI_LAYER
