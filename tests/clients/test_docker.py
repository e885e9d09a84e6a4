"""docker itself, through a daemon of its own, logs in, pushes, pulls and pulls again by digest.

True here: an image that was pushed, removed and pulled has its old id (so its configuration and all its
layers are right); layers that are there are not pushed again; what rules forbid is denied. The daemon has no
network and runs no container; as for every address of this machine it tries TLS on the plain port first.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from auth.people import PASSWORDS
from blackbox import DOCKER_MANIFEST, Registry, Server, seeded_bytes

from clients.images import tar_of
from clients.programs import Program, missing, private_environment, require_program, require_root
from clients.test_access import guarded as guarded


def wait_until_booted(daemon: subprocess.Popen[str]) -> None:
    assert daemon.stderr is not None
    said = []
    for line in daemon.stderr:
        said.append(line)
        if "API listen on" in line:
            return
    missing("dockerd does not start here: " + "".join(said)[-1000:])


@pytest.fixture(scope="module")
def daemon() -> Iterator[Path]:
    """The home of a dockerd that lives as long as this module's tests."""
    require_program("docker")
    require_program("dockerd")
    require_root("dockerd")
    # Not tmp_path: the path of a Unix socket must stay under 108 bytes.
    with tempfile.TemporaryDirectory(prefix="docker", dir="/tmp") as name:
        home = Path(name)
        command = [
            "dockerd",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver=vfs",
        ]
        command += [f"--data-root={home}/root", f"--exec-root={home}/exec", f"--pidfile={home}/pid"]
        with (
            (home / "log").open("w") as log,
            subprocess.Popen(
                [*command, f"--host=unix://{home}/sock"],
                stdout=log,
                stderr=subprocess.PIPE,
                env=private_environment(home),
                text=True,
            ) as running,
        ):
            try:
                wait_until_booted(running)
                yield home
            finally:
                running.terminate()
                running.communicate()


@pytest.fixture
def docker(daemon: Path, tmp_path: Path) -> Iterator[Program]:
    """A client with credentials of its own; the images that it made are gone afterwards."""
    program = Program(["docker", f"--host=unix://{daemon}/sock"], tmp_path / "docker")
    yield program
    forget_everything(program)


def import_image(docker: Program, seed: str) -> str:
    """The id of an image of one layer."""
    archive = docker.home / "layer.tar"
    archive.write_bytes(tar_of({"file.bin": seeded_bytes(seed, 2_000_000)}))
    return docker("import", str(archive))


def forget_everything(docker: Program) -> None:
    images = docker("images", "--all", "--quiet").split()
    if images:
        docker("rmi", "--force", *dict.fromkeys(images))


def image_id(docker: Program, reference: str) -> str:
    return docker("image", "inspect", "--format={{.Id}}", reference)


def test_push_and_pull(server: Registry, docker: Program) -> None:
    """Push, remove, pull by tag, remove, pull by digest: the same id; a second tag brings no layer again."""
    made = import_image(docker, "docker")
    name = f"{server.address}/docker/image"
    docker("tag", made, f"{name}:1")
    docker("tag", made, f"{name}:2")
    pushed = docker("push", f"{name}:1")
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", pushed)
    assert found is not None, pushed
    assert "Layer already exists" in docker("push", f"{name}:2")
    answer = server.request("HEAD", "/v2/docker/image/manifests/2")
    assert answer.headers["Content-Type"] == DOCKER_MANIFEST
    assert answer.headers["Docker-Content-Digest"] == found[1]
    for reference in (f"{name}:1", f"{name}@{found[1]}"):
        forget_everything(docker)
        docker("pull", "--quiet", reference)
        assert image_id(docker, reference) == made


def test_mount(server: Registry, docker: Program) -> None:
    """What one repository has is mounted into the next."""
    made = import_image(docker, "docker mount")
    one, two = (f"{server.address}/docker/{name}:1" for name in ("one", "two"))
    docker("tag", made, one)
    docker("tag", made, two)
    docker("push", one)
    assert "Mounted from docker/one" in docker("push", two)
    forget_everything(docker)
    docker("pull", "--quiet", two)
    assert image_id(docker, two) == made


def test_access(guarded: Server, docker: Program) -> None:
    """Without login, with a wrong password and as somebody without the right it is refused; else it works."""
    made = import_image(docker, "docker access")
    name = f"{guarded.address}/team/docker:1"
    docker("tag", made, name)
    assert docker.attempt("push", name).returncode != 0

    def login(user: str, password: str) -> bool:
        words = ("login", f"--username={user}", f"--password={password}", guarded.address)
        return docker.attempt(*words).returncode == 0

    assert not login("ann", "wrong")
    assert login("ann", PASSWORDS["ann"])
    docker("push", name)
    forget_everything(docker)
    docker("pull", "--quiet", name)
    assert image_id(docker, name) == made
    forget_everything(docker)
    # Not a refused push: docker tries that for a minute.
    assert login("eve", PASSWORDS["eve"])
    assert "denied" in docker.attempt("pull", "--quiet", name).stderr
    docker("logout", guarded.address)
    assert docker.attempt("pull", "--quiet", name).returncode != 0
