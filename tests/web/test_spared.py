"""What of Quart is kept out of memory, and that nobody misses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trioreg.web.spared import SPARED, spared


def run(program: str) -> str:
    """What a fresh interpreter prints; its failure is the test's."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_application_is_there_without_them() -> None:
    """Quart is loaded, none of the spared modules is, and each exists, so that the list is not stale."""
    program = f"""
import importlib.util, sys
import trioreg.web
assert "quart.app" in sys.modules
print(sorted(name for name in {sorted(SPARED)} if name in sys.modules))
print(sorted(name for name in {sorted(SPARED)} if importlib.util.find_spec(name) is None))
"""
    assert run(program) == "[]\n[]"


def test_each_is_one_that_quart_would_load() -> None:
    """Without us Quart loads every one of them: the list names nothing for nothing."""
    program = f"import sys, quart_trio; print(sorted(set({sorted(SPARED)}) - set(sys.modules)))"
    assert run(program) == "[]"


def test_who_wants_one_later_gets_the_real_one() -> None:
    """A stand-in leaves no trace where modules are looked up."""
    program = """
import trioreg.web
import jinja2, werkzeug.test, flask.cli
print(jinja2.Environment().from_string("{{ a }}").render(a=1), werkzeug.test.Client.__name__)
"""
    assert run(program) == "1 Client"


def test_what_is_loaded_stays() -> None:
    """A program that imported Quart before us has all of it."""
    program = """
import quart_trio
import trioreg.web.app
print(trioreg.web.app.QuartTrio.test_client_class.__name__)
"""
    assert run(program) == "TrioClient"


def test_a_stand_in_says_so_when_it_is_used() -> None:
    """It can be imported from and derived from; what is called says what is not loaded."""
    with spared(frozenset({"trioreg_absent"})):
        from trioreg_absent.part import Thing  # type: ignore[import-not-found]

    with pytest.raises(ImportError, match=r"trioreg_absent\.part\.Thing is not loaded"):
        Thing(1, two=2)
    assert not [name for name in sys.modules if name.startswith("trioreg_absent")]
    with pytest.raises(ModuleNotFoundError):
        __import__("trioreg_absent")
