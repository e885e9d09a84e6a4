"""Fixtures of every suite that speaks to a real server over a real socket.

Every test that asks for a server runs on both fronts (`http.front`): what a registry promises does not
depend on who reads the socket. A test marked `one_front` runs on the direct lane only, for its time.

TRIOREG_TEST_URL names a registry that runs already: the session's `server` is then that one (other
registries can be measured by our tests), and tests that need a process of their own are skipped.
"""

import os
import shutil
import ssl
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from blackbox import Registry, Server

FRONTS = ("direct", "quart")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_front: takes seconds, so it runs on the direct lane only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "http_front" in metafunc.fixturenames:
        one = metafunc.definition.get_closest_marker("one_front") or os.environ.get("TRIOREG_TEST_URL")
        metafunc.parametrize("http_front", FRONTS[:1] if one else FRONTS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def http_front(request: pytest.FixtureRequest) -> str:
    """Which front the servers of a test have."""
    front: str = request.param
    return front


@pytest.fixture(scope="session")
def server(http_front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One server for the whole session and each front: tests must use repositories of their own."""
    url = os.environ.get("TRIOREG_TEST_URL")
    if url:
        yield Registry(url)
        return
    settings = {"http.front": http_front}
    with Server(tmp_path_factory.mktemp(f"server-{http_front}"), settings=settings) as running:
        yield running


@pytest.fixture
def fresh_server(http_front: str, tmp_path: Path) -> Iterator[Server]:
    """A server with an empty storage for one test, which may stop, kill and restart it."""
    if os.environ.get("TRIOREG_TEST_URL"):
        pytest.skip("needs a server process of its own, TRIOREG_TEST_URL names a foreign one")
    with Server(tmp_path / "server", settings={"http.front": http_front}) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody signed, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    home = tmp_path_factory.mktemp("certificate")
    made, key = home / "certificate.pem", home / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-out", made, "-keyout", key], check=True, capture_output=True)
    return made, key


@pytest.fixture(scope="session")
def tls_server(
    http_front: str, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Like `server`, over TLS."""
    made, key = certificate
    settings = {
        "http.front": http_front,
        "http.tls_certificate": str(made),
        "http.tls_key": str(key),
    }
    trusting = ssl.create_default_context(cafile=str(made))
    with Server(tmp_path_factory.mktemp(f"tls-{http_front}"), settings=settings, tls=trusting) as running:
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
