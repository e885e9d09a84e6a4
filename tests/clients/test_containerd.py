"""containerd, driven by its own `ctr`, imports, pushes, pulls and fetches.

True here: the containerd of the test is private (root, state and socket in a directory of its own,
no CRI, nothing is run), and an image that was pushed, forgotten and pulled has its digest again.
"""

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import Manifest, Registry, push_manifest

from clients.images import assert_holds, platform_index, write_layout
from clients.programs import Program, missing, private_environment, require_program, require_root

CONFIGURATION = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{home}/containerd.sock"
"""
PLAIN = "--plain-http"


def wait_until_booted(daemon: subprocess.Popen[str]) -> None:
    assert daemon.stderr is not None
    said = []
    for line in daemon.stderr:
        said.append(line)
        if "successfully booted" in line:
            return
    missing("containerd does not start here: " + "".join(said)[-1000:])


@pytest.fixture(scope="module")
def ctr() -> Iterator[Program]:
    """`ctr` speaking to a containerd that lives as long as this module's tests."""
    require_program("containerd")
    require_program("ctr")
    require_root("containerd")
    # Not tmp_path: the path of a Unix socket must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="containerd", dir="/tmp") as name:
        home = Path(name)
        configuration = home / "config.toml"
        configuration.write_text(CONFIGURATION.format(home=home))
        with subprocess.Popen(
            ["containerd", "--config", str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=private_environment(home),
            text=True,
        ) as daemon:
            try:
                wait_until_booted(daemon)
                yield Program(["ctr", "--address", f"{home}/containerd.sock"], home)
            finally:
                daemon.terminate()


def import_image(ctr: Program, directory: Path, repository: str, image: Manifest) -> str:
    """Bring an image into containerd from a tar of an OCI layout; its name there."""
    write_layout(directory / "layout", image)
    archive = directory / "layout.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(directory / "layout", arcname=".")
    ctr("images", "import", "--no-unpack", "--base-name", repository, str(archive))
    return f"{repository}:latest"


@pytest.mark.one_front
def test_push_and_pull(server: Registry, ctr: Program, large_image: Manifest, tmp_path: Path) -> None:
    """An image with a layer of 100 MB goes there and back."""
    name = import_image(ctr, tmp_path, f"{server.address}/containerd/large", large_image)
    ctr("images", "push", PLAIN, name)
    assert_holds(server, "containerd/large", "latest", large_image)
    forget_everything(ctr)
    ctr("images", "pull", PLAIN, "--snapshotter=native", name)
    assert large_image.digest in ctr("images", "list", f"name=={name}")


def test_index(server: Registry, ctr: Program, platforms: dict[str, Manifest]) -> None:
    """All platforms of an index are fetched, content only, and pushed on to another repository."""
    index = platform_index(platforms)
    for image in platforms.values():
        push_manifest(server, "containerd/index", image)
    push_manifest(server, "containerd/index", index, "1")
    name = f"{server.address}/containerd/index:1"
    forget_everything(ctr)
    ctr("content", "fetch", PLAIN, "--all-platforms", name)
    copied = f"{server.address}/containerd/copied:1"
    ctr("images", "tag", name, copied)
    ctr("images", "push", PLAIN, copied)
    assert_holds(server, "containerd/copied", "1", index)
    for image in platforms.values():
        assert_holds(server, "containerd/copied", image.digest, image)


def forget_everything(ctr: Program) -> None:
    """No image and no content is left in containerd."""
    for name in ctr("images", "list", "--quiet").splitlines():
        ctr("images", "remove", "--sync", name)
    for digest in ctr("content", "list", "--quiet").splitlines():
        ctr("content", "remove", digest)
