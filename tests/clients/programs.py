"""How the suites find and run the client programs.

The rules: a client that is missing fails where TRIOREG_TEST_REQUIRE_CLIENTS=1 (CI) and skips with a
reason elsewhere; a program sees a home of its own, no proxy and no credentials, so it speaks to
loopback only and leaves nothing behind.
"""

import importlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

RUN_SECONDS = 100.0


def missing(reason: str) -> None:
    """Fail or skip the test, whichever is right here."""
    if os.environ.get("TRIOREG_TEST_REQUIRE_CLIENTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_program(name: str) -> None:
    if shutil.which(name) is None:
        missing(f"the program {name} is not installed")


def require_root(name: str) -> None:
    """Skip or fail for programs whose private storage needs mounts and foreign owners."""
    if os.geteuid() != 0:
        missing(f"{name} needs root for a storage of its own")


def require_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return missing(f"the Python package {name} is not installed")


def private_environment(home: Path) -> dict[str, str]:
    """The environment of a program that must not see or change the user's own files."""
    auth = home / "auth.json"
    auth.write_text("{}")
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(home),
        "REGISTRY_AUTH_FILE": str(auth),
    }


class Program:
    """A command line with its private home: `skopeo("inspect", reference)` gives its output."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        require_program(command[0])
        self.command = list(command)
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.environment = private_environment(home)

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run to its end, whatever its exit code."""
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )

    def __call__(self, *arguments: str) -> str:
        """Standard output, stripped. AssertionError with both outputs on a non-zero exit."""
        done = self.attempt(*arguments)
        said = f"{self.command[0]} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"exit code {done.returncode}: {said}"
        return done.stdout.strip()
