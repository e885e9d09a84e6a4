"""From a file of TOML, and what the command line changes in it, to a Scenario.

The rule: nothing is ignored. Whatever cannot be meant is a ScenarioError that names the file and the place.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perf.harness.scenario import Scenario, from_text

SCENARIOS = Path(__file__).parent.parent / "scenarios"


class ScenarioError(Exception):
    """The scenario cannot be run as written; the message says where and why, in a line."""


@dataclass(frozen=True)
class Override:
    """`--set limits.peak_rss=64MB`, `--set group.pushes.clients=10`, `--set server.memory.budget=16MiB`."""

    path: tuple[str, ...]
    value: str


def override(text: str) -> Override:
    """ValueError when it is not NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return Override(tuple(name.split(".")), value)


def load_scenario(name: str, overrides: list[Override] | None = None) -> Scenario:
    """From a file, or one of the ready ones by name. ScenarioError when it cannot be run."""
    file = Path(name) if name.endswith(".toml") else SCENARIOS / f"{name}.toml"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        ready = ", ".join(sorted(each.stem for each in SCENARIOS.glob("*.toml")))
        raise ScenarioError(f"no scenario {name}; ready ones are {ready}") from None
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{file}: {error}") from None
    document.setdefault("name", file.stem)
    for each in overrides or []:
        apply(document, each)
    try:
        return to_scenario(document, file.parent)
    except (OSError, ValueError) as error:  # msgspec.ValidationError is the second
        raise ScenarioError(f"{file}: {error}") from None


def to_scenario(document: Mapping[str, Any], folder: Path) -> Scenario:
    """ValueError for anything unknown, wrong or contradictory."""
    document = {**document, "server": dict(flat(document.get("server", {})))}
    for sizes in all_sizes(document):
        if isinstance(sizes.get("recorded"), str):
            sizes["recorded"] = (folder / sizes["recorded"]).read_text().split()
    return msgspec.convert(document, Scenario, dec_hook=from_text)


def all_sizes(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every table of sizes, still as TOML had it."""
    groups = document.get("group", [])
    holders = [*(groups if isinstance(groups, list) else []), document.get("catalog")]
    for holder in holders:
        if isinstance(holder, dict) and isinstance(holder.get("sizes"), dict):
            yield holder["sizes"]


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`{memory = {budget = "1MiB"}}` and `{"memory.budget" = "1MiB"}` alike, values as text."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value).lower() if isinstance(value, bool) else str(value)


def apply(document: dict[str, Any], change: Override) -> None:
    """Change one value of a document. ScenarioError when the way there does not exist."""
    *way, last = change.path
    if way[:1] == ["server"]:
        way, last = ["server"], ".".join(change.path[1:])
        document["server"] = dict(flat(document.get("server", {})))
    here: Any = document
    for step in way:
        if isinstance(here, list):
            here = next((item for item in here if item.get("name") == step), None)
        else:
            here = here.setdefault(step, {})
        if not isinstance(here, dict | list):
            raise ScenarioError(f"--set {'.'.join(change.path)}: there is no {step}")
    if isinstance(here, list):
        raise ScenarioError(f"--set {'.'.join(change.path)}: which group?")
    here[last] = change.value if way[:1] == ["server"] else literal(change.value)


def literal(text: str) -> Any:
    """A TOML value where it is one (5, 0.5, true, {…}), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
