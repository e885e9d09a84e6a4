"""`trioreg auth`: what people type, and what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
from auth.people import write_rules

from trioreg.cli import main


def run(home: Path, *arguments: str) -> int:
    variables = {
        "REGISTRY_STORAGE_PATH": str(home / "storage"),
        "TRIOREG_AUTH_ACCESS": str(write_rules(home)),
    }
    return main(["auth", *arguments], variables)


def test_a_robot_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its token is shown once; a second of the same name is refused until it is revoked."""
    scope = "repository:ci/**:pull,push"
    assert run(tmp_path, "robot", "create", "ci", "--scope", scope, "--days", "1") == 0
    made = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert made["user"] == "robot+ci"
    file = tmp_path / "storage" / "auth" / "robots" / "ci.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["password"] not in file.read_text()
    assert run(tmp_path, "robot", "create", "ci") == 1
    assert "there is a robot ci" in capsys.readouterr().err
    assert run(tmp_path, "robot", "list") == 0
    listed = capsys.readouterr().out
    assert scope in listed and "until 20" in listed
    assert run(tmp_path, "robot", "revoke", "ci") == 0
    assert run(tmp_path, "robot", "revoke", "ci") == 1
    assert "there is no robot ci" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Ci",), "not a name for a robot"),
        (("../ci",), "not a name for a robot"),
        (("ci", "--scope", "repository:ci"), "is not a scope"),
        (("ci", "--scope", "repository:ci/**:fly"), "is not a scope"),
        (("ci", "--scope", "registry:catalog:*"), "is not a scope"),
        (("ci", "--scope", "repository:CI:pull"), "not a repository pattern"),
    ],
)
def test_a_robot_that_cannot_be(
    arguments: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says why, and nothing is made."""
    assert run(tmp_path, "robot", "create", *arguments) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "storage" / "auth").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ann", "push", "team/a"), 0, "allowed: rule 1: @team may pull, push, delete in team/**"),
        (("eve", "push", "team/a"), 1, "denied: no rule grants push"),
        (("anonymous", "pull", "public/a"), 0, "allowed: rule 2: * may pull in public/**"),
        (("anonymous", "pull", "team/a"), 1, "denied: no rule grants pull"),
        (("root", "admin"), 0, "allowed: rule 3: root may pull, push, delete, admin in **"),
        (("ann", "admin"), 1, "denied: no rule grants admin"),
    ],
)
def test_explain(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer a server would give, and the rule it goes by."""
    assert run(tmp_path, "explain", *arguments) == code
    assert capsys.readouterr().out == f"{says}\n"


def test_explain_a_robot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own scopes; one that is not there is an error."""
    assert run(tmp_path, "robot", "create", "ci", "--scope", "repository:ci/**:pull") == 0
    capsys.readouterr()
    assert run(tmp_path, "explain", "robot+ci", "pull", "ci/a") == 0
    assert capsys.readouterr().out == "allowed: its own scope repository:ci/**:pull\n"
    assert run(tmp_path, "explain", "robot+ci", "push", "ci/a") == 1
    assert run(tmp_path, "explain", "robot+none", "push", "ci/a") == 2
    assert run(tmp_path, "explain", "ann", "push", "NO") == 2
