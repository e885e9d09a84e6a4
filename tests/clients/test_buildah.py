"""buildah builds from nothing, pushes, and builds further on what the registry gives back.

True here: a build on a base from the registry pulls it whole, and its push adds only the new layer.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import Registry, digest_of, seeded_bytes

from clients.images import manifest_of
from clients.programs import Program, require_root

INSECURE = "--tls-verify=false"


def private_buildah(home: Path) -> Program:
    """A buildah with a storage of its own under `home`."""
    require_root("buildah")
    options = ["--root", str(home / "root"), "--runroot", str(home / "run")]
    return Program(["buildah", *options, "--storage-driver", "vfs"], home)


@pytest.fixture
def buildah() -> Iterator[Program]:
    # Not tmp_path: a runroot of more than 50 characters is refused.
    with tempfile.TemporaryDirectory(prefix="buildah", dir="/tmp") as home:
        yield private_buildah(Path(home))


def build(buildah: Program, base: str, name: str, content: bytes) -> None:
    """Commit `base` plus one layer holding a file as the local image `name`."""
    source = buildah.home / "file.bin"
    source.write_bytes(content)
    container = buildah("from", INSECURE, "--pull-always", base)
    buildah("copy", container, str(source), f"/{len(content)}.bin")
    buildah("commit", "--rm", "--quiet", container, name)


def test_build_on_a_base_from_the_registry(server: Registry, buildah: Program) -> None:
    """The derived image starts with the layers of its base and holds both files."""
    base = f"{server.address}/buildah/base:1"
    derived = f"{server.address}/buildah/derived:1"
    first, second = seeded_bytes("first", 2_000_000), seeded_bytes("second", 1_000_000)
    build(buildah, "scratch", base, first)
    buildah("push", "--quiet", INSECURE, base)
    buildah("rmi", "--all", "--force")
    build(buildah, base, derived, second)
    buildah("push", "--quiet", INSECURE, derived)
    below = manifest_of(server, "buildah/base", "1")["layers"]
    above = manifest_of(server, "buildah/derived", "1")["layers"]
    assert len(below) == 1
    assert len(above) == 2
    assert above[0]["digest"] == below[0]["digest"]
    buildah("rmi", "--all", "--force")
    container = buildah("from", INSECURE, derived)
    root = Path(buildah("mount", container))
    assert digest_of((root / "2000000.bin").read_bytes()) == digest_of(first)
    assert digest_of((root / "1000000.bin").read_bytes()) == digest_of(second)
