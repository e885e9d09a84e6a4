"""The documentation agrees with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from trioreg import __version__
from trioreg.cli import settings_as_markdown
from trioreg.config import SETTINGS, Setting, load

TOP = Path(__file__).parent.parent
CONFIGURATION = (TOP / "docs" / "configuration.md").read_text(encoding="utf-8")
DEPENDENCIES = (TOP / "docs" / "dependencies.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_configuration_page_has_the_table_of_the_code() -> None:
    """After a change of the table: python -m trioreg config --markdown, into the page."""
    assert settings_as_markdown() in CONFIGURATION


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_documented_once(setting: Setting) -> None:
    """Each setting has one row, with help that is a sentence."""
    start = f"| `{setting.name}` "
    [row] = [line for line in CONFIGURATION.splitlines() if line.startswith(start)]
    assert setting.help in row
    assert setting.help[0].isupper() or setting.help[0] == "`"
    assert setting.help.endswith(".")


def test_the_example_file_of_the_configuration_page_loads(tmp_path: Path) -> None:
    """What people copy works."""
    [example] = re.findall(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    file = tmp_path / "trioreg.toml"
    file.write_text(example)
    load({}, {}, file)


def test_every_runtime_dependency_is_explained() -> None:
    """docs/dependencies.md has a section for each, and for nothing else."""
    names = [re.split(r"[<>=!~ ]", text, maxsplit=1)[0] for text in PROJECT["dependencies"]]
    assert re.findall(r"^### (\S+)", DEPENDENCIES, re.MULTILINE) == names


def test_the_lock_pins_every_dependency_and_names_no_index() -> None:
    """Each direct dependency has an exact version, and the file works wherever it is used."""
    lock = (TOP / "requirements-dev.lock").read_text(encoding="utf-8")
    direct = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    for text in direct:
        name = re.split(r"[<>=!~ ]", text, maxsplit=1)[0]
        assert re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE), name
    assert "://" not in lock
    assert "--" not in lock


def test_the_changelog_begins_with_what_is_not_released() -> None:
    """Unreleased comes first, and the newest release below it is the package's version."""
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *released = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert first == "Unreleased"
    assert released[:1] in ([], [__version__])
