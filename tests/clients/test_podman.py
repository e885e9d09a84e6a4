"""podman imports, pushes, pulls, lists, tags and joins images into an index; contents stay equal.

True here: an image that was pushed, removed and pulled again has its old id (so its configuration
and all its layers are right) and its files, by tag and by digest, as OCI and as Docker schema 2,
compressed with gzip and with zstd. No container is run: that would test the machine, not us.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest, Registry, digest_of, seeded_bytes

from clients.images import manifest_of, tar_of, write_layout
from clients.programs import Program, require_root

INSECURE = "--tls-verify=false"
CONTENT = seeded_bytes("podman", 3_000_000)


def private_podman(home: Path) -> Program:
    """A podman with a storage of its own under `home`, with neither daemon nor systemd."""
    require_root("podman")
    options = ["--root", str(home / "root"), "--runroot", str(home / "run")]
    options += ["--tmpdir", str(home / "tmp"), "--storage-driver", "vfs", "--runtime", "runc"]
    options += ["--cgroup-manager=cgroupfs", "--events-backend=file"]
    return Program(["podman", *options], home)


@pytest.fixture
def podman() -> Iterator[Program]:
    # Not tmp_path: podman refuses a runroot of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman", dir="/tmp") as home:
        yield private_podman(Path(home))


def import_file(podman: Program, content: bytes) -> str:
    """The id of an image of one layer that holds `file.bin`."""
    archive = podman.home / "layer.tar"
    archive.write_bytes(tar_of({"file.bin": content}))
    return podman("import", "--quiet", str(archive))


@pytest.fixture
def imported(podman: Program) -> str:
    return import_file(podman, CONTENT)


def file_digest(podman: Program, image: str) -> str:
    """The digest of `file.bin` in a local image, read through a container that never starts."""
    container = podman("create", image, "/none")
    copied = podman.home / "copied"
    podman("cp", f"{container}:/file.bin", str(copied))
    podman("rm", container)
    return digest_of(copied.read_bytes())


@pytest.mark.parametrize(("form", "media_type"), [("oci", OCI_MANIFEST), ("v2s2", DOCKER_MANIFEST)])
def test_push_and_pull(server: Registry, podman: Program, imported: str, form: str, media_type: str) -> None:
    """Push, remove, pull by tag, remove, pull by digest: same id, same file."""
    name = f"{server.address}/podman/{form}"
    digests = podman.home / "digest"
    podman("push", INSECURE, f"--format={form}", f"--digestfile={digests}", imported, f"{name}:1")
    answer = server.request("HEAD", f"/v2/podman/{form}/manifests/1")
    assert answer.headers["Content-Type"] == media_type
    assert answer.headers["Docker-Content-Digest"] == digests.read_text()
    for reference in (f"{name}:1", f"{name}@{digests.read_text()}"):
        podman("rmi", "--all", "--force")
        assert podman("pull", "--quiet", INSECURE, reference) == imported.removeprefix("sha256:")
        assert file_digest(podman, reference) == digest_of(CONTENT)


def test_zstd(server: Registry, podman: Program) -> None:
    """Layers that podman compresses with zstd come back."""
    content = seeded_bytes("never pushed as gzip, so podman cannot reuse that", 1_000_000)
    imported = import_file(podman, content)
    name = f"{server.address}/podman/zstd:1"
    podman("push", INSECURE, "--format=oci", "--compression-format=zstd", imported, name)
    [layer] = manifest_of(server, "podman/zstd", "1")["layers"]
    assert layer["mediaType"].endswith("+zstd")
    podman("rmi", "--all", "--force")
    podman("pull", "--quiet", INSECURE, name)
    assert file_digest(podman, name) == digest_of(content)


@pytest.mark.one_front
def test_large_image(server: Registry, podman: Program, large_image: Manifest, tmp_path: Path) -> None:
    """An image of three layers, one of 100 MB, keeps its id on the way there and back."""
    name = f"{server.address}/podman/large:1"
    image = podman("pull", "--quiet", write_layout(tmp_path / "layout", large_image))
    podman("push", "--quiet", INSECURE, image, name)
    assert len(manifest_of(server, "podman/large", "1")["layers"]) == 3
    podman("rmi", "--all", "--force")
    assert podman("pull", "--quiet", INSECURE, name) == image
    layers = json.loads(podman("image", "inspect", name))[0]["RootFS"]["Layers"]
    assert layers == json.loads(large_image.blobs[0])["rootfs"]["diff_ids"]


def test_tags(server: Registry, podman: Program, imported: str) -> None:
    """A local tag is pushed as another tag of the same image; `search --list-tags` shows both."""
    name = f"{server.address}/podman/tags"
    podman("push", INSECURE, imported, f"{name}:1")
    podman("tag", imported, f"{name}:2")
    podman("push", INSECURE, f"{name}:2")
    rows = podman("search", INSECURE, "--list-tags", name)
    assert [row.split()[-1] for row in rows.splitlines()[1:]] == ["1", "2"]


def test_manifest_list(server: Registry, podman: Program, imported: str) -> None:
    """`podman manifest push --all` makes an index whose entry pulls as the image it names."""
    name = f"{server.address}/podman/joined:1"
    podman("tag", imported, "localhost/one:1")
    entry = "containers-storage:localhost/one:1"
    podman("manifest", "create", "joined")
    podman("manifest", "add", "--arch=arm64", "--os=linux", "joined", entry)
    podman("manifest", "push", INSECURE, "--all", "--format=oci", "joined", f"docker://{name}")
    answer = server.request("GET", "/v2/podman/joined/manifests/1")
    assert answer.headers["Content-Type"] == OCI_INDEX
    [listed] = answer.json()["manifests"]
    assert listed["platform"]["architecture"] == "arm64"
    podman("manifest", "rm", "joined")
    podman("rmi", "--all", "--force")
    podman("pull", "--quiet", INSECURE, "--arch=arm64", name)
    assert file_digest(podman, name) == digest_of(CONTENT)
