"""The documentation agrees with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from trioreg import __version__
from trioreg.cli.settings import settings_as_markdown
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
        name = re.split(r"[<>=!~ \[]", text, maxsplit=1)[0].lower()
        assert re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE), name
    assert "://" not in lock
    assert "--" not in lock


def test_the_changelog_begins_with_what_is_not_released() -> None:
    """Unreleased comes first, and the newest release below it is the package's version."""
    changelog = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *released = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert first == "Unreleased"
    assert released[:1] in ([], [__version__])


# What README and docs/ name: links, settings, files, tests and targets.

PAGES = (
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    TOP / "CHANGELOG.md",
    TOP / "SECURITY.md",
    *sorted((TOP / "docs").glob("*.md")),
)
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (TOP / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
TABLES = {setting.name.partition(".")[0] for setting in SETTINGS}
# Endings of names that look like a setting and are files.
FILES = {"md", "py", "pyi", "toml", "lock", "c", "h", "json", "html", "xml", "yaml"}
OUR_FOLDERS = ("trioreg/", "tests/", "docs/", "perf/", ".ci/")


def links_within(page: str) -> list[str]:
    """Targets of the links of a page that stay in the repository, without the heading."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page)]
    return [link for link in links if link and "://" not in link]


def quoted(page: str) -> list[str]:
    """What stands in backticks in the running text and tables, not in the blocks of code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE))


def settings_named(page: str) -> set[str]:
    """`section.key`, with or without a value behind it, where the section is one of the table's."""
    found = {re.split(r"[= ]", text, maxsplit=1)[0] for text in quoted(page)}
    found |= set(re.findall(r"--set ([a-z_.]+)", page))
    names = {name for name in found if re.fullmatch(r"[a-z]+\.[a-z_0-9]+", name)}
    return {name for name in names if name.split(".")[0] in TABLES and name.split(".")[1] not in FILES}


def paths_named(page: str) -> set[str]:
    """Files and folders of ours, wherever the page names them."""
    return {text for text in quoted(page) if text.startswith(OUR_FOLDERS) and " " not in text}


def modules_named(page: str) -> set[str]:
    """`trioreg.pipeline.budget` as a path without its ending."""
    return {text.replace(".", "/") for text in quoted(page) if re.fullmatch(r"trioreg(\.[a-z_]+)+", text)}


def proofs_named(page: str) -> set[str]:
    """Names of tests."""
    return {text for text in quoted(page) if re.fullmatch(r"test_[a-z0-9_]+", text)}


def targets_named(page: str) -> set[str]:
    """What `make` is asked to do, in backticks or at the start of a line of code."""
    return set(re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)", page, re.MULTILINE))


all_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@all_pages
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    """A reader who follows a link inside the repository arrives."""
    links = links_within(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@all_pages
def test_every_setting_that_is_named_exists(page: Path) -> None:
    """A setting that was renamed or removed is so in the text too."""
    names = {setting.name for setting in SETTINGS}
    assert settings_named(page.read_text(encoding="utf-8")) - names == set()


@all_pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Paths lead to files or folders, dotted names to modules."""
    text = page.read_text(encoding="utf-8")
    assert {path for path in paths_named(text) if not (TOP / path).exists()} == set()
    assert {path for path in modules_named(text) if not list(TOP.glob(f"{path}*"))} == set()


@all_pages
def test_every_test_that_is_named_exists(page: Path) -> None:
    """What a page says is proved by a test has that test."""
    sources = [file.read_text(encoding="utf-8") for file in (TOP / "tests").rglob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert proofs_named(page.read_text(encoding="utf-8")) - there == set()


@all_pages
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    """A command that is copied from a page runs."""
    assert targets_named(page.read_text(encoding="utf-8")) - TARGETS == set()


def test_what_is_looked_for_is_found() -> None:
    """The checks above see what they are about: none of them passes because it finds nothing."""
    page = (
        "See [there](docs/gone.md#x), `memory.gone`, `trioreg/gone.py`, `trioreg.gone`, `test_gone`, "
        "`make gone` and `perf --set http.lost=1`.\n```sh\nmake lost\n```\n"
    )
    assert links_within(page) == ["docs/gone.md"]
    assert settings_named(page) == {"memory.gone", "http.lost"}
    assert paths_named(page) == {"trioreg/gone.py"}
    assert modules_named(page) == {"trioreg/gone"}
    assert proofs_named(page) == {"test_gone"}
    assert targets_named(page) == {"gone", "lost"}
    assert {"serve", "test", "check", "perf", "perf-memory"} <= TARGETS
