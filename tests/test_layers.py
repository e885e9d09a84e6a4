"""Arrows point down only: proved from the imports, wherever in a file they stand.

A layer may import any layer to its right on a line of `LINES`. To move an arrow, change it here and
in docs/architecture.md with the reason.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LINES = (
    "cli server web api registry pipeline storage oci",
    "server api events oci",
    "api auth oci",
    "cli server auth oci",
    "cli client oci",
)
# Leaves import nothing else of ours. Whoever is named may import them; None is every layer but oci.
LEAVES: dict[str, set[str] | None] = {
    "config": {"cli", "server"},
    "logs": None,
    "metrics": None,
}
# Packages of others that only one layer may know.
KEPT = {"quart": "web", "quart_trio": "web", "hypercorn": "server"}
OCI_MAY = sys.stdlib_module_names | {"msgspec"}

LAYERS = {layer for line in LINES for layer in line.split()}
ROOT = "trioreg"  # trioreg/__init__.py: the version, and nothing of ours
MAIN = "__main__"


def below(layer: str) -> set[str]:
    """The layers that `layer` may import."""
    lines = [line.split() for line in LINES]
    return {name for line in lines if layer in line for name in line[line.index(layer) + 1 :]}


def imported(file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything `file` imports: anywhere, lazily or relatively."""
    parts = file.relative_to(root.parent).with_suffix("").parts
    package = parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else ()
                source = ".".join([*above, *([node.module] if node.module else [])])
                # `from a import b` may name a module: keep b, as `a.b`.
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
            case (
                ast.Call(func=ast.Name(id="__import__" | "import_module"))
                | ast.Call(func=ast.Attribute(attr="import_module"))
            ):
                name = node.args[0] if node.args else None
                text = name.value if isinstance(name, ast.Constant) else "a computed name"
                yield node.lineno, str(text)


def layer_of(parts: tuple[str, ...]) -> str:
    """`trioreg/web/app.py` and `trioreg/web.py` are layer web; the package's own file is ROOT."""
    first = Path(parts[0]).stem
    return ROOT if first == "__init__" else first


def violations(root: Path) -> list[str]:
    """One line for every import in the package at `root` that no rule allows."""
    files = sorted(root.rglob("*.py"))
    ours = {layer_of(file.relative_to(root).parts) for file in files}
    found = [f"{name}: no such layer" for name in sorted(ours - LAYERS - set(LEAVES) - {ROOT, MAIN})]
    for file in files:
        layer = layer_of(file.relative_to(root).parts)
        for line, name in imported(file, root):
            if why := refused(layer, name, ours):
                found.append(f"{file.relative_to(root)}:{line}: {why}")
    return found


def refused(layer: str, name: str, ours: set[str]) -> str | None:
    """Why `layer` may not import `name`, or None."""
    if name == "a computed name":
        return "imports a computed name, which nobody can check"
    top, *inner = name.split(".")
    if top == ROOT:
        target = inner[0] if inner and inner[0] in ours | LAYERS | set(LEAVES) else ROOT
        return None if may_import(layer, target) else f"{layer} may not import {target}"
    if top in KEPT and layer != KEPT[top]:
        return f"only {KEPT[top]} may import {top}"
    if layer == "oci" and top not in OCI_MAY:
        return f"oci may import only the standard library and msgspec, not {top}"
    return None


def may_import(layer: str, target: str) -> bool:
    """Whether `layer` may import `target`, both of ours."""
    if layer == target:
        return True
    if layer == MAIN:
        return target == "cli"
    if layer == ROOT or layer in LEAVES:
        return False
    if target == ROOT:
        return layer != "oci"
    if target in LEAVES:
        allowed = LEAVES[target]
        return layer != "oci" if allowed is None else layer in allowed
    return target in below(layer)


def test_arrows_point_down_only() -> None:
    """No import of the package breaks a rule."""
    root = Path(__file__).parent.parent / ROOT
    assert len(list(root.rglob("*.py"))) > 5
    assert violations(root) == []


def test_what_is_below() -> None:
    """The lines mean what DESIGN says of them."""
    assert below("oci") == set()
    assert below("storage") == {"oci"}
    assert below("auth") == {"oci"}
    assert below("client") == {"oci"}
    assert below("registry") == {"pipeline", "storage", "oci"}
    assert below("events") == {"oci"}
    assert below("api") == {"registry", "pipeline", "storage", "oci", "auth", "events"}
    assert below("cli") == LAYERS - {"cli", "events"}


@pytest.mark.parametrize(
    ("file", "code", "says"),
    [
        ("storage/a.py", "import trioreg.registry.blobs", "storage may not import registry"),
        ("storage/a.py", "from trioreg import pipeline", "storage may not import pipeline"),
        ("storage/a.py", "from trioreg.pipeline import pump", "storage may not import pipeline"),
        ("storage/a.py", "from .. import api", "storage may not import api"),
        ("storage/a.py", "from ..web.app import App", "storage may not import web"),
        ("storage/deep/a.py", "from ...web import app", "storage may not import web"),
        ("storage/__init__.py", "from ..web import app", "storage may not import web"),
        ("registry/a.py", "def f():\n    from trioreg.api import x", "registry may not import api"),
        ("registry/a.py", "class A:\n    async def f(self):\n        import trioreg.web", "web"),
        (
            "pipeline/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trioreg.registry",
            "pipeline may not import registry",
        ),
        ("api/a.py", "import importlib\nimportlib.import_module('trioreg.web')", "import web"),
        ("api/a.py", "__import__('trioreg.server')", "api may not import server"),
        ("api/a.py", "from importlib import import_module\nimport_module(name)", "computed"),
        ("auth/a.py", "import trioreg.storage", "auth may not import storage"),
        ("registry/a.py", "import trioreg.auth", "registry may not import auth"),
        ("client/a.py", "import trioreg.storage", "client may not import storage"),
        ("server/a.py", "import trioreg.client", "server may not import client"),
        ("server/a.py", "import trioreg.cli", "server may not import cli"),
        ("registry/a.py", "from trioreg.config import Config", "registry may not import config"),
        ("web/a.py", "from trioreg import config", "web may not import config"),
        ("config.py", "import trioreg.oci", "config may not import oci"),
        ("logs.py", "from . import metrics", "logs may not import metrics"),
        ("metrics.py", "from trioreg import __version__", "metrics may not import trioreg"),
        ("oci/a.py", "import trioreg.logs", "oci may not import logs"),
        ("oci/a.py", "from trioreg import __version__", "oci may not import trioreg"),
        ("oci/a.py", "import trio", "oci may import only the standard library and msgspec"),
        ("server/a.py", "import quart", "only web may import quart"),
        ("api/a.py", "from quart_trio import QuartTrio", "only web may import quart_trio"),
        ("web/a.py", "def f():\n    import hypercorn.config", "only server may import hypercorn"),
        ("__init__.py", "from trioreg.cli import main", "trioreg may not import cli"),
        ("__main__.py", "import trioreg.server", "__main__ may not import server"),
        ("utils/a.py", "", "utils: no such layer"),
        ("helpers.py", "", "helpers: no such layer"),
    ],
)
def test_a_violation_is_seen(file: str, code: str, says: str, tmp_path: Path) -> None:
    """In a tree that breaks one rule, exactly that rule is reported."""
    found = violations(tree(tmp_path, {file: code}))
    assert len(found) == 1, found
    assert says in found[0]


def test_a_tree_that_keeps_the_rules_has_no_violation(tmp_path: Path) -> None:
    """What is allowed is not reported, in every form of import."""
    files = {
        "__main__.py": "from trioreg.cli import main",
        "cli.py": "from trioreg import __version__\ndef f():\n    from .server.run import serve",
        "config.py": "import json",
        "server/run.py": "import hypercorn\nfrom ..web import app\nfrom ..config import Config",
        "web/app.py": "import quart, quart_trio\nfrom ..api import blobs\nfrom ..oci import names",
        "api/blobs.py": "from ..auth import a\nimport trioreg.registry.blobs\nfrom .x import y",
        "auth/a.py": "from trioreg import oci, logs",
        "client/a.py": "import trioreg.oci.names as n",
        "oci/names.py": "import re, msgspec\nfrom . import digest\nfrom .digest import Digest",
        "storage/a.py": "import trio\nfrom trioreg.logs import Log\nfrom trioreg import metrics",
    }
    assert violations(tree(tmp_path, files)) == []


def tree(folder: Path, files: dict[str, str]) -> Path:
    """A package named as ours, with `files`."""
    root = folder / ROOT
    for name, code in {"__init__.py": "", **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    return root
