"""Whether a root agrees with itself, looked at from outside: files only, nothing of trioreg."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def check_copy(root: Path) -> int:
    """Every tag leads to a manifest, every manifest to its bytes, all of them right; the number of tags."""
    seen: set[str] = set()

    def content(digest: str) -> bytes:
        algorithm, encoded = digest.split(":")
        data = (root / "blobs" / algorithm / encoded[:2] / encoded).read_bytes()
        if digest not in seen:
            assert hashlib.new(algorithm, data).hexdigest() == encoded, digest
            seen.add(digest)
        return data

    tags = 0
    for link in (root / "repositories").rglob("_manifests/tags/*/current/link"):
        repository = link.parents[4]
        digest = link.read_text()
        tags += 1
        assert revision(repository, digest).exists(), f"{link} leads to no manifest"
    for link in (root / "repositories").rglob("_manifests/revisions/*/*/link"):
        repository = link.parents[4]
        document = json.loads(content(link.read_text()))
        assert (link.parent / "media-type").exists()
        for need in [document["config"], *document["layers"]] if "config" in document else []:
            assert layer(repository, need["digest"]).exists(), f"{link} needs {need['digest']}"
            content(need["digest"])
        for need in document.get("manifests", ()):
            assert revision(repository, need["digest"]).exists(), f"{link} needs {need['digest']}"
    for link in (root / "repositories").rglob("_layers/*/*/link"):
        content(link.read_text())
    return tags


def revision(repository: Path, digest: str) -> Path:
    return repository / "_manifests/revisions" / digest.replace(":", "/") / "link"


def layer(repository: Path, digest: str) -> Path:
    return repository / "_layers" / digest.replace(":", "/") / "link"
