"""podman, skopeo and oras log in, push and pull under rules, with passwords and with tokens.

True here: `login` succeeds with the right password and fails with a wrong one; a push and a pull that the
rules allow work, those that they do not are denied; what everyone may pull is pulled without logging in; a
robot's token is a password.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from auth.people import PASSWORDS, write_htpasswd, write_rules
from blackbox import Manifest, Server, seeded_bytes

from clients.images import platform_image, tar_of, write_layout
from clients.programs import Program, require_module
from clients.test_podman import import_file, private_podman
from trioreg.auth.robots import Robots

INSECURE = "--tls-verify=false"


@pytest.fixture(params=["false", "true"], ids=["passwords", "tokens"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    settings = {
        "auth.htpasswd": str(write_htpasswd(tmp_path)),
        "auth.access": str(write_rules(tmp_path)),
        "auth.tokens": request.param,
    }
    with Server(tmp_path / "server", settings=settings) as server:
        yield server


@pytest.fixture(scope="module")
def image() -> Manifest:
    return platform_image([(tar_of({"file": seeded_bytes("access", 500_000)}), True)])


def test_skopeo(guarded: Server, image: Manifest, tmp_path: Path) -> None:
    """login, copy there and back, copy to a public place, and from it without credentials."""
    source = write_layout(tmp_path / "layout", image)
    skopeo = Program(["skopeo", "--insecure-policy"], tmp_path / "skopeo")
    stranger = Program(["skopeo", "--insecure-policy"], tmp_path / "stranger")
    team, public = (f"docker://{guarded.address}/{name}:1" for name in ("team/skopeo", "public/skopeo"))
    push = ("copy", "--quiet", "--dest-tls-verify=false", source)
    assert skopeo.attempt(*push, team).returncode != 0
    login = ("login", INSECURE, guarded.address, "--username")
    assert skopeo.attempt(*login, "ann", "--password", "wrong").returncode != 0
    skopeo(*login, "ann", "--password", PASSWORDS["ann"])
    skopeo(*push, team)
    assert "denied" in skopeo.attempt(*push, public).stderr
    skopeo("copy", "--quiet", "--src-tls-verify=false", team, f"dir:{tmp_path / 'pulled'}")
    skopeo(*login, "root", "--password", PASSWORDS["root"])
    both = ("--src-tls-verify=false", "--dest-tls-verify=false")
    skopeo("copy", "--quiet", *both, team, public)
    stranger("copy", "--quiet", "--src-tls-verify=false", public, f"dir:{tmp_path / 'public'}")
    assert stranger.attempt("inspect", INSECURE, team).returncode != 0


def test_podman(guarded: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A robot logs in by its token and pushes where its scope says."""
    scope = "repository:ci/**:pull,push"
    secret = Robots(guarded.storage / "auth" / "robots").create("ci", [scope], None)
    with tempfile.TemporaryDirectory(prefix="podman", dir="/tmp") as home:
        podman = private_podman(Path(home))
        made = import_file(podman, seeded_bytes("podman access", 100_000))
        here, there = f"{guarded.address}/ci/image:1", f"{guarded.address}/team/image:1"
        assert podman.attempt("push", INSECURE, made, here).returncode != 0
        wrong = podman.attempt("login", INSECURE, "-u", "robot+ci", "-p", "wrong", guarded.address)
        assert wrong.returncode != 0
        podman("login", INSECURE, "-u", "robot+ci", "-p", secret, guarded.address)
        podman("push", INSECURE, made, here)
        assert podman.attempt("push", INSECURE, made, there).returncode != 0
        podman("rmi", "--all", "--force")
        podman("pull", "--quiet", INSECURE, here)


def test_oras(guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact is pushed and pulled by a user, and by nobody else."""
    require_module("oras")
    provider = require_module("oras.provider")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("an artifact")
    target = f"{guarded.address}/team/artifact:1"
    # With its other backend it keeps its first token, for whatever it asks next: it renews only on 403, where
    # docker, podman and skopeo renew on 401.
    for name, allowed in (("ann", True), ("eve", False)):
        oras = provider.Registry(hostname=guarded.address, insecure=True, auth_backend="basic")
        oras.auth.set_basic_auth(name, PASSWORDS[name])
        if not allowed:
            with pytest.raises(ValueError, match=r"denied|DENIED"):
                oras.push(target=target, files=["file.txt"])
            continue
        assert oras.push(target=target, files=["file.txt"]).status_code == 201
        [pulled] = oras.pull(target=target, outdir=str(tmp_path / "out"))
        assert Path(pulled).read_text() == "an artifact"
