"""Parts of Quart that a registry never runs, kept out of memory: templates, commands, clients, servers.

Quart imports them when it is imported itself, and they take a tenth of what an idle server with it takes.
While `spared` is open an import of one of them gives an empty module, whose names are classes that cannot
be made. Once it is closed nobody can import these modules any more: who wants one later gets the real one.

Rule: what is loaded already stays as it is, so a program that uses Quart for itself imports it first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Self

# What Quart 0.22 and Quart-trio 0.12 import and `WebApp` never calls; `test_spared` holds that.
SPARED = frozenset(
    {
        "aiofiles",
        "flask.cli",
        "hypercorn.asyncio",
        "jinja2",
        "quart.cli",
        "quart.testing",
        "quart_trio.testing",
        "werkzeug.serving",
        "werkzeug.test",
    }
)

# Of those an application makes one when it is made itself; nobody asks it anything.
_MADE = frozenset({"AppGroup"})


@contextmanager
def spared(names: frozenset[str] = SPARED) -> Iterator[None]:
    """Import Quart inside. Not for two threads at once."""
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in finder.made:
            parent, _, name = module.__name__.rpartition(".")
            del sys.modules[module.__name__]
            if parent in sys.modules:
                delattr(sys.modules[parent], name)


class _Finder:
    """A meta path finder and its loader (PEP 302, PEP 451)."""

    def __init__(self, names: frozenset[str]):
        self._names = names
        self.made: list[_Empty] = []

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = any(name == each or name.startswith(f"{each}.") for each in self._names)
        return ModuleSpec(name, self, is_package=True) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _Empty(spec.name)
        self.made.append(module)
        return module

    def exec_module(self, _module: ModuleType) -> None:
        pass


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Absent,), {"__module__": self.__name__})


class Absent(Exception):
    """Stands for a class or a function; as an exception it may be named in an ``except`` too."""

    def __new__(cls, *_arguments: object, **_named: object) -> Self:
        if cls.__name__ not in _MADE:
            raise ImportError(f"{cls.__module__}.{cls.__name__} is not loaded in a registry")
        return super().__new__(cls)
