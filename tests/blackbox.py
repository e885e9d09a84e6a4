"""A real trioreg server as a process, and the few HTTP words every black-box suite needs.

Owns: starting, stopping, killing and restarting `python -m trioreg serve` on a port of its own, and
small builders for blobs, images, indexes and artifacts. The rule it keeps: standard library only,
nothing of trioreg is imported, so what is tested here is what a stranger on the wire sees.
"""

import contextlib
import gzip
import hashlib
import http.client
import json
import os
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

START_SECONDS = 20.0
STOP_SECONDS = 40.0  # the default shutdown grace is 30
ANSWER_SECONDS = 60.0

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True)
class Answer:
    """One HTTP response; `headers.get` ignores case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error_codes(self) -> list[str]:
        """The codes of the OCI error envelope, [] when the body is not one."""
        try:
            return [error["code"] for error in self.json()["errors"]]
        except (ValueError, KeyError, TypeError):
            return []


class Registry:
    """A registry that runs already, known by its URL. `tls`: whom an https URL has to be signed by."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self.tls = tls

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def address(self) -> str:
        """`host:port`, the form clients put before a repository name."""
        return f"{self.host}:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own. `path` may also be a Location as it came.

        An iterable body is sent with chunked transfer coding unless Content-Length is given.
        """
        connection = self._connection()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                # A refusal may come, and the connection close, before the body was sent.
                connection.request(method, path_of(path), body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=ANSWER_SECONDS)
        return http.client.HTTPSConnection(self.host, self.port, timeout=ANSWER_SECONDS, context=self.tls)

    def connect(self) -> socket.socket:
        """A raw connection, for tests that cut it."""
        return socket.create_connection((self.host, self.port), timeout=ANSWER_SECONDS)


class Server(Registry):
    """`python -m trioreg serve` on a free port of 127.0.0.1; a context manager that stops it.

    `home` gets the standard error (`stderr.log`) and, unless `storage` is given, the storage.
    `settings` are configuration names and values: {"http.stall_timeout": "2"}; `program` is what Python runs.
    """

    def __init__(
        self,
        home: Path,
        *,
        storage: Path | None = None,
        settings: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        program: Sequence[str] = ("-m", "trioreg"),
    ) -> None:
        super().__init__("", tls)
        self.home = home
        self.program = list(program)
        self.storage = storage if storage is not None else home / "storage"
        self.settings = dict(settings or {})
        self.options = list(options)
        self.stderr_path = home / "stderr.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def stderr(self) -> str:
        """All that this server, and those before a restart, wrote to standard error."""
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def start(self) -> Self:
        """Start and wait for the line that says where it listens. RuntimeError without one."""
        assert self._process is None, "already started"
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *self.program, "serve"]
        command += ["--storage", str(self.storage), "--bind", "127.0.0.1:0", *self.options]
        with self.stderr_path.open("ab") as stderr:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, env=self._environment()
            )
        line = self._first_line()
        if not line.startswith("trioreg listening on "):
            self.kill()
            raise RuntimeError(f"no server: it said {line!r}, and to stderr:\n{self.stderr}")
        self.url = line.split()[-1]
        return self

    def stop(self) -> None:
        """SIGTERM; the server must end by itself with exit code 0."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {STOP_SECONDS} s after SIGTERM") from None
        self._forget()
        assert code == 0, f"exit code {code} after SIGTERM, stderr:\n{self.stderr[-4000:]}"

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def kill(self) -> None:
        """SIGKILL: it cannot save a thing. Nothing to do when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def restart(self) -> Self:
        """Stop (if it runs) and start on the same storage; the port is another one."""
        if self._process is not None:
            self.stop()
        return self.start()

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _first_line(self) -> str:
        stdout = self._running().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_SECONDS)
        return stdout.readline().decode().strip() if ready else ""

    def _forget(self) -> None:
        process, self._process = self._running(), None
        if process.stdout is not None:
            process.stdout.close()

    def _environment(self) -> dict[str, str]:
        ours = ("TRIOREG_", "REGISTRY_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        for name, value in self.settings.items():
            clean["TRIOREG_" + name.upper().replace(".", "_")] = value
        return clean


def path_of(location: str) -> str:
    """The path and query of a Location header, absolute or relative."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def with_query(location: str, query: str) -> str:
    """`location` with one more query parameter, whether or not it has some."""
    return f"{location}{'&' if '?' in location else '?'}{query}"


def seeded_bytes(seed: int | str, size: int) -> bytes:
    """`size` random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def compressed(content: bytes) -> bytes:
    """gzip, the same bytes for the same content."""
    return gzip.compress(content, compresslevel=1, mtime=0)


Descriptor = dict[str, Any]


def descriptor(media_type: str, content: bytes, algorithm: str = "sha256") -> Descriptor:
    digest = digest_of(content, algorithm)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


@dataclass(frozen=True)
class Manifest:
    """The bytes of a manifest or index as they travel, and the blobs they name."""

    media_type: str
    body: bytes
    blobs: tuple[bytes, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of(self.body)

    @property
    def descriptor(self) -> Descriptor:
        return descriptor(self.media_type, self.body)


def image(
    config: bytes = b"{}",
    layers: Sequence[bytes] = (),
    *,
    media_type: str = OCI_MANIFEST,
    config_type: str = OCI_CONFIG,
    layer_type: str = OCI_LAYER,
    **members: Any,
) -> Manifest:
    """An image manifest of these blobs; `members` are further JSON members (annotations …)."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config_type, config),
        "layers": [descriptor(layer_type, layer) for layer in layers],
        **members,
    }
    return Manifest(media_type, json.dumps(document).encode(), (config, *layers))


def artifact(artifact_type: str, content: bytes, subject: Descriptor | None = None) -> Manifest:
    """An OCI 1.1 artifact of one blob, attached to `subject` when one is given."""
    attached: dict[str, Any] = {} if subject is None else {"subject": subject}
    return image(
        b"{}",
        [content],
        config_type=OCI_EMPTY,
        layer_type="application/octet-stream",
        artifactType=artifact_type,
        **attached,
    )


def index(entries: Iterable[Descriptor], media_type: str = OCI_INDEX, **members: Any) -> Manifest:
    """An index (or Docker list) of descriptors, each with a `platform` where it has one."""
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries), **members}
    return Manifest(media_type, json.dumps(document).encode())


def push_blob(registry: Registry, repository: str, content: bytes, algorithm: str = "sha256") -> str:
    """Push by POST and one PUT; the digest. AssertionError unless both succeed."""
    opened = registry.request("POST", f"/v2/{repository}/blobs/uploads/")
    assert opened.status == 202, opened
    digest = digest_of(content, algorithm)
    location = with_query(opened.headers["Location"], f"digest={digest}")
    headers = {"Content-Type": "application/octet-stream"}
    closed = registry.request("PUT", location, content, headers)
    assert closed.status == 201, closed
    return digest


def push_manifest(
    registry: Registry, repository: str, manifest: Manifest, reference: str | None = None
) -> Answer:
    """Push the manifest's blobs and then itself, by `reference` (default: its digest)."""
    for blob in dict.fromkeys(manifest.blobs):
        push_blob(registry, repository, blob)
    path = f"/v2/{repository}/manifests/{reference or manifest.digest}"
    answer = registry.request("PUT", path, manifest.body, {"Content-Type": manifest.media_type})
    assert answer.status == 201, answer
    return answer
