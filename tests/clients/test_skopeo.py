"""skopeo pushes, pulls, copies, lists, inspects, tags and deletes, and every byte arrives.

True here: a push keeps the manifest byte for byte; layers travel gzipped, plain, and compressed on
the way (so that their digest is unknown until the end); an index keeps all its platforms; Docker
schema 2 keeps its media types; a copy between repositories mounts and sends no layer again.
"""

import gzip
import json
from pathlib import Path

import pytest
from blackbox import DOCKER_LIST, DOCKER_MANIFEST, Manifest, Registry, digest_of, seeded_bytes

from clients.images import (
    assert_blob,
    assert_holds,
    manifest_of,
    platform_image,
    platform_index,
    tar_of,
    write_layout,
)
from clients.programs import Program

KEEP = ("--preserve-digests",)


@pytest.fixture
def skopeo(tmp_path: Path) -> Program:
    return Program(["skopeo", "--insecure-policy"], tmp_path / "home")


@pytest.fixture
def small_image() -> Manifest:
    layers = [tar_of({f"{name}.bin": seeded_bytes(name, 500_000)}) for name in ("one", "two")]
    return platform_image([(layer, True) for layer in layers])


def remote(server: Registry, name: str) -> str:
    return f"docker://{server.address}/{name}"


def push(skopeo: Program, source: str, target: str, *options: str) -> None:
    skopeo("copy", "--quiet", "--dest-tls-verify=false", *options, source, target)


def pull(skopeo: Program, source: str, target: str, *options: str) -> None:
    skopeo("copy", "--quiet", "--src-tls-verify=false", *options, source, target)


def assert_pulled(directory: Path, manifest: Manifest) -> None:
    """A `dir:` of skopeo holds this manifest and its blobs, byte for byte."""
    assert (directory / "manifest.json").read_bytes() == manifest.body
    for blob in manifest.blobs:
        hexadecimal = digest_of(blob).partition(":")[2]
        assert digest_of((directory / hexadecimal).read_bytes()) == digest_of(blob)


@pytest.mark.one_front
def test_large_image(server: Registry, skopeo: Program, large_image: Manifest, tmp_path: Path) -> None:
    """Layers of 100 MB and less, plain and gzipped, come back as they were pushed."""
    source = write_layout(tmp_path / "layout", large_image)
    push(skopeo, source, remote(server, "skopeo/large:1"), *KEEP)
    assert_holds(server, "skopeo/large", "1", large_image)
    pull(skopeo, remote(server, "skopeo/large:1"), f"dir:{tmp_path / 'pulled'}", *KEEP)
    assert_pulled(tmp_path / "pulled", large_image)


def test_compressed_on_the_way(server: Registry, skopeo: Program, tmp_path: Path) -> None:
    """A layer that skopeo gzips while it sends is stored under the digest it had at the end."""
    layer = tar_of({"plain.bin": seeded_bytes("plain", 5_000_000)})
    source = write_layout(tmp_path / "layout", platform_image([(layer, False)]))
    push(skopeo, source, remote(server, "skopeo/gzipped:1"))
    [stored] = manifest_of(server, "skopeo/gzipped", "1")["layers"]
    assert stored["mediaType"].endswith("+gzip")
    content = assert_blob(server, "skopeo/gzipped", stored["digest"], stored["size"])
    assert digest_of(gzip.decompress(content)) == digest_of(layer)


def test_zstd(server: Registry, skopeo: Program, small_image: Manifest, tmp_path: Path) -> None:
    """Layers compressed with zstd by skopeo pull back to the same plain layers."""
    source = write_layout(tmp_path / "layout", small_image)
    name = remote(server, "skopeo/zstd:1")
    push(skopeo, source, name, "--dest-compress-format", "zstd", "--dest-compress")
    config = json.loads(skopeo("inspect", "--tls-verify=false", "--config", name))
    assert config["rootfs"] == json.loads(small_image.blobs[0])["rootfs"]


def test_index(server: Registry, skopeo: Program, platforms: dict[str, Manifest], tmp_path: Path) -> None:
    """An index is pushed and pulled with all platforms, and one platform can be picked."""
    index = platform_index(platforms)
    source = write_layout(tmp_path / "layout", index, list(platforms.values()))
    name = remote(server, "skopeo/index:1")
    push(skopeo, source, name, "--all", *KEEP)
    assert_holds(server, "skopeo/index", "1", index)
    for image in platforms.values():
        assert_holds(server, "skopeo/index", image.digest, image)
    pull(skopeo, name, f"dir:{tmp_path / 'all'}", "--all", *KEEP)
    assert (tmp_path / "all" / "manifest.json").read_bytes() == index.body
    one = Program(["skopeo", "--insecure-policy", "--override-arch=arm64"], skopeo.home)
    pull(one, name, f"dir:{tmp_path / 'arm64'}", *KEEP)
    assert_pulled(tmp_path / "arm64", platforms["arm64"])


def test_docker_schema_2(
    server: Registry, skopeo: Program, platforms: dict[str, Manifest], tmp_path: Path
) -> None:
    """Docker manifests and lists keep their media types, by tag and by digest."""
    source = write_layout(tmp_path / "layout", platform_index(platforms), [*platforms.values()])
    push(skopeo, source, remote(server, "skopeo/docker:list"), "--format=v2s2", "--all")
    answer = server.request("GET", "/v2/skopeo/docker/manifests/list")
    assert answer.headers["Content-Type"] == DOCKER_LIST
    for entry in answer.json()["manifests"]:
        path = f"/v2/skopeo/docker/manifests/{entry['digest']}"
        assert server.request("HEAD", path).headers["Content-Type"] == DOCKER_MANIFEST
    pull(skopeo, remote(server, "skopeo/docker:list"), f"dir:{tmp_path / 'one'}")
    assert (tmp_path / "one" / "manifest.json").exists()


def test_copy_between_repositories_mounts(
    server: Registry, skopeo: Program, small_image: Manifest, tmp_path: Path
) -> None:
    """A copy inside the registry asks for mounts, gets them, and sends no layer again."""
    source = write_layout(tmp_path / "layout", small_image)
    push(skopeo, source, remote(server, "skopeo/here:1"), *KEEP)
    here, there = remote(server, "skopeo/here:1"), remote(server, "skopeo/far/there:2")
    both = ("--src-tls-verify=false", "--dest-tls-verify=false", *KEEP)
    said = skopeo.attempt("--debug", "copy", *both, here, there)
    assert said.returncode == 0, said.stderr
    for layer in small_image.blobs[1:]:
        algorithm, _, hexadecimal = digest_of(layer).partition(":")
        assert f"mount={algorithm}%3A{hexadecimal}" in said.stderr
        assert f"Upload of layer {digest_of(layer)} complete" not in said.stderr
    assert_holds(server, "skopeo/far/there", "2", small_image)


def test_list_tag_inspect_delete(
    server: Registry, skopeo: Program, small_image: Manifest, tmp_path: Path
) -> None:
    """Tags can be added, listed and inspected; delete takes the image away."""
    source = write_layout(tmp_path / "layout", small_image)
    names = [remote(server, f"skopeo/tags:{tag}") for tag in ("1.0", "1.1", "latest")]
    push(skopeo, source, names[0], *KEEP)
    both = ("--src-tls-verify=false", "--dest-tls-verify=false", *KEEP)
    for name in names[1:]:
        skopeo("copy", "--quiet", *both, names[0], name)
    repository = remote(server, "skopeo/tags")
    listed = json.loads(skopeo("list-tags", "--tls-verify=false", repository))
    assert listed["Tags"] == ["1.0", "1.1", "latest"]
    inspected = json.loads(skopeo("inspect", "--tls-verify=false", names[1]))
    assert inspected["Digest"] == small_image.digest
    assert inspected["Layers"] == [digest_of(blob) for blob in small_image.blobs[1:]]
    skopeo("delete", "--tls-verify=false", names[0])
    assert skopeo.attempt("inspect", "--tls-verify=false", names[0]).returncode != 0
    by_digest = f"{repository}@{small_image.digest}"
    assert skopeo.attempt("inspect", "--tls-verify=false", by_digest).returncode != 0


def test_sync(server: Registry, skopeo: Program, small_image: Manifest, tmp_path: Path) -> None:
    """`skopeo sync` fetches every tag of a repository."""
    source = write_layout(tmp_path / "layout", small_image)
    for tag in ("a", "b"):
        push(skopeo, source, remote(server, f"skopeo/sync:{tag}"), *KEEP)
    directory = tmp_path / "synced"
    ends = ("--src=docker", "--dest=dir", "--src-tls-verify=false", *KEEP)
    skopeo("sync", *ends, f"{server.address}/skopeo/sync", str(directory))
    for tag in ("a", "b"):
        assert_pulled(directory / f"sync:{tag}", small_image)


def test_missing_image_is_an_error(server: Registry, skopeo: Program) -> None:
    """What is not there is reported as unknown, not as a broken registry."""
    said = skopeo.attempt("inspect", "--tls-verify=false", remote(server, "skopeo/nothing:1"))
    assert said.returncode != 0
    assert "unknown" in said.stderr.lower()
