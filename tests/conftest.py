"""Fixtures of every suite that speaks to a real server over a real socket.

TRIOREG_TEST_URL names a registry that runs already: the session's `server` is then that one (other
registries can be measured by our tests), and tests that need a process of their own are skipped.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blackbox import Registry, Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One server for the whole session: tests must use repositories of their own."""
    url = os.environ.get("TRIOREG_TEST_URL")
    if url:
        yield Registry(url)
        return
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Server]:
    """A server with an empty storage for one test, which may stop, kill and restart it."""
    if os.environ.get("TRIOREG_TEST_URL"):
        pytest.skip("needs a server process of its own, TRIOREG_TEST_URL names a foreign one")
    with Server(tmp_path / "server") as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the last words of its servers."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Server):
                report.sections.append((f"stderr of {name}", value.stderr[-8000:]))
    return report
