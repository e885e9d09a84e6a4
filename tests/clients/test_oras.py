"""The Python client `oras` pushes, pulls, lists, attaches, discovers and deletes artifacts.

True here: files come back by name with their bytes, sent whole and in chunks with Content-Range;
pages of tags follow `Link`; what is attached with a subject is among the subject's referrers.
The package has no call for the referrers API, so discovery asks over plain HTTP and pulls what it
found with the client.
"""

from pathlib import Path
from typing import Any

import pytest
from blackbox import (
    OCI_INDEX,
    OCI_MANIFEST,
    Registry,
    artifact,
    digest_of,
    push_manifest,
    seeded_bytes,
)

from clients.conftest import LARGE
from clients.programs import require_module

SBOM = "application/vnd.example.sbom.v1"


@pytest.fixture
def oras(server: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A client whose working directory, from which it pushes files, is the test's own."""
    monkeypatch.chdir(tmp_path)
    require_module("oras")
    provider = require_module("oras.provider")
    client = provider.Registry(server.address, insecure=True)
    yield client
    client.session.close()


def push_file(oras: Any, target: str, content: bytes, **options: Any) -> Any:
    Path("file.bin").write_bytes(content)
    answer = oras.push(target=target, files=["file.bin:application/x-test"], **options)
    assert answer.status_code == 201
    return answer


def pulled(oras: Any, target: str, directory: Path) -> str:
    """Pull an artifact of one file; the digest of what came."""
    [name] = oras.pull(target=target, outdir=str(directory))
    return digest_of(Path(name).read_bytes())


@pytest.mark.one_front
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_large_file(server: Registry, oras: Any, chunked: bool, tmp_path: Path) -> None:
    """A file of 100 MB comes back, sent in one PUT or in chunks of 16 MiB."""
    target = f"{server.address}/oras/large:{int(chunked)}"
    content = seeded_bytes(f"oras {chunked}", LARGE)
    push_file(oras, target, content, do_chunked=chunked)
    assert pulled(oras, target, tmp_path / "out") == digest_of(content)


def test_directory_and_annotations(server: Registry, oras: Any, tmp_path: Path) -> None:
    """A directory travels as one layer, files beside it as theirs, annotations on the manifest."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "inner.txt").write_text("inner")
    (tmp_path / "outer.txt").write_text("outer")
    target = f"{server.address}/oras/tree:1"
    oras.push(target=target, files=["tree", "outer.txt"], manifest_annotations={"made": "here"})
    manifest = oras.get_manifest(target)
    assert manifest["annotations"] == {"made": "here"}
    assert len(manifest["layers"]) == 2
    oras.pull(target=target, outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "tree" / "inner.txt").read_text() == "inner"
    assert (tmp_path / "out" / "outer.txt").read_text() == "outer"


def test_tags(server: Registry, oras: Any) -> None:
    """Tags are listed in order, all of them and page by page, and go away one by one."""
    name = f"{server.address}/oras/tags"
    expected = [f"v{number:02}" for number in range(7)]
    for tag in expected:
        push_file(oras, f"{name}:{tag}", tag.encode())
    assert oras.get_tags(name) == expected
    assert oras.get_tags(name, N=3) == expected[:3]
    pages: list[list[str]] = []

    def collect(response: Any) -> bool:
        pages.append(response.json()["tags"])
        return True

    oras._do_paginated_request(f"{server.url}/v2/oras/tags/tags/list?n=3", callable=collect)
    assert [tag for page in pages for tag in page] == expected
    assert [len(page) for page in pages] == [3, 3, 1]
    assert oras.delete_tags(name, ["v01", "v99"]) == ["v01"]
    assert oras.get_tags(name) == [tag for tag in expected if tag != "v01"]


def test_attach_and_discover(server: Registry, oras: Any, tmp_path: Path) -> None:
    """What oras attaches is found among the referrers of its subject, and can be pulled."""
    subject_type = require_module("oras.oci").Subject
    name = f"{server.address}/oras/attached"
    head = push_file(oras, f"{name}:image", b"the image")
    digest = head.headers["Docker-Content-Digest"]
    subject = subject_type(OCI_MANIFEST, digest, len(head.request.body))
    answer = push_file(oras, f"{name}:signature", b"the signature", subject=subject)
    assert answer.headers["OCI-Subject"] == digest
    found = server.request("GET", f"/v2/oras/attached/referrers/{digest}")
    assert found.headers["Content-Type"] == OCI_INDEX
    [referrer] = found.json()["manifests"]
    assert referrer["digest"] == answer.headers["Docker-Content-Digest"]
    target = f"{name}@{referrer['digest']}"
    assert pulled(oras, target, tmp_path / "out") == digest_of(b"the signature")


def test_discover_by_artifact_type(server: Registry, oras: Any, tmp_path: Path) -> None:
    """An artifact with an `artifactType` is found by it, and oras pulls it by digest."""
    head = push_file(oras, f"{server.address}/oras/typed:image", b"another image")
    digest = head.headers["Docker-Content-Digest"]
    subject = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(head.request.body)}
    content = seeded_bytes("sbom", 50_000)
    sbom = artifact(SBOM, content, subject)
    push_manifest(server, "oras/typed", sbom)
    push_manifest(server, "oras/typed", artifact("application/vnd.example.other", b"x", subject))
    found = server.request("GET", f"/v2/oras/typed/referrers/{digest}?artifactType={SBOM}")
    assert found.headers["OCI-Filters-Applied"] == "artifactType"
    [referrer] = found.json()["manifests"]
    assert referrer["artifactType"] == SBOM
    assert referrer["digest"] == sbom.digest
    target = f"{server.address}/oras/typed@{sbom.digest}"
    assert pulled(oras, target, tmp_path / "out") == digest_of(content)
