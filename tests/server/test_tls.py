"""TLS by certificate and key, on both fronts, and HTTP/2 where it is switched on."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from blackbox import ANSWER_SECONDS, Server, digest_of, image, seeded_bytes
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

NAME = "some/name"
BLOB = seeded_bytes(2, 700_000)


@dataclass(frozen=True)
class Identity:
    certificate: Path
    key: Path

    def client(self, *protocols: str) -> ssl.SSLContext:
        """A context that trusts this certificate and nothing else."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols(list(protocols))
        return context

    @property
    def settings(self) -> dict[str, str]:
        return {"http.tls_certificate": str(self.certificate), "http.tls_key": str(self.key)}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A certificate for 127.0.0.1 that signs itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    home = tmp_path_factory.mktemp("tls")
    made = Identity(home / "certificate.pem", home / "key.pem")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture(params=["direct", "quart"])
def secure(request: pytest.FixtureRequest, identity: Identity, tmp_path: Path) -> Iterator[Server]:
    settings = {**identity.settings, "http.front": request.param, "http.http2": "true"}
    with Server(tmp_path, settings=settings) as server:
        yield server


def test_push_and_pull(secure: Server, identity: Identity) -> None:
    """Over one kept-alive connection; the URL that was printed says https."""
    assert secure.url.startswith("https://127.0.0.1:")
    connection = http.client.HTTPSConnection(
        secure.host, secure.port, context=identity.client("http/1.1"), timeout=ANSWER_SECONDS
    )
    digest = digest_of(BLOB)

    def request(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    connection.request("POST", f"/v2/{NAME}/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"]
    assert request("PATCH", location, BLOB[:333_333])[0] == 202
    assert request("PUT", f"{location}?digest={digest}", BLOB[333_333:])[0] == 201
    assert request("GET", f"/v2/{NAME}/blobs/{digest}") == (200, BLOB)
    part = request("GET", f"/v2/{NAME}/blobs/{digest}", None, Range="bytes=100-199")
    assert part == (206, BLOB[100:200])
    assert request("GET", f"/v2/{NAME}/manifests/none")[0] == 404
    connection.close()


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), (("other",), None), ((), None)],
    ids=["h2", "http1", "unknown", "none"],
)
def test_alpn_with_http2(
    secure: Server, identity: Identity, offered: tuple[str, ...], agreed: str | None
) -> None:
    """HTTP/2 for who asks for it."""
    with secure.connect() as plain:
        context = (
            identity.client(*offered) if offered else ssl.create_default_context(cafile=identity.certificate)
        )
        with context.wrap_socket(plain, server_hostname=secure.host) as connection:
            assert connection.selected_alpn_protocol() == agreed
            assert connection.version() in ("TLSv1.2", "TLSv1.3")


def test_alpn_without_http2(identity: Identity, tmp_path: Path) -> None:
    """It is not offered unless it is switched on."""
    with Server(tmp_path, settings=identity.settings) as server, server.connect() as plain:
        context = identity.client("h2", "http/1.1")
        with context.wrap_socket(plain, server_hostname=server.host) as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"


@dataclass
class Stream:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False


class Http2:
    """As much of an HTTP/2 client as a push and a pull need: one request at a time."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._flush()
        self._stream = Stream()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Stream:
        number = self._h2.get_next_available_stream_id()
        self._stream = Stream()
        named = [(name.lower().replace("_", "-"), value) for name, value in headers.items()]
        fixed = [(":method", method), (":path", path), (":scheme", "https"), (":authority", "a")]
        self._h2.send_headers(number, [*fixed, *named], end_stream=not body)
        self._flush()
        while body and not self._stream.ended:
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if not room:
                self._receive()
                continue
            self._h2.send_data(number, body[:room], end_stream=len(body) <= room)
            body = body[room:]
            self._flush()
        while not self._stream.ended:
            self._receive()
        return self._stream

    def _receive(self) -> None:
        data = self._connection.recv(65536)
        assert data, "the server closed the connection"
        for event in self._h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                headers = {str(name): str(value) for name, value in event.headers or []}
                self._stream.status, self._stream.headers = int(headers[":status"]), headers
            elif isinstance(event, DataReceived):
                self._stream.body += event.data or b""
                if event.flow_controlled_length:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
            elif isinstance(event, StreamEnded | StreamReset):
                self._stream.ended = True
        self._flush()

    def _flush(self) -> None:
        self._connection.sendall(self._h2.data_to_send())


def test_push_and_pull_over_http2(secure: Server, identity: Identity) -> None:
    """An image in pieces, its errors in the envelope, and its bytes back, on one connection."""
    with secure.connect() as plain:
        context = identity.client("h2")
        with context.wrap_socket(plain, server_hostname=secure.host) as connection:
            client = Http2(connection)
            assert client.request("GET", "/v2/").status == 200
            for blob in (BLOB, b"{}"):
                opened = client.request("POST", f"/v2/{NAME}/blobs/uploads/")
                assert opened.status == 202
                location = opened.headers["location"]
                half = len(blob) // 2
                assert client.request("PATCH", location, blob[:half]).status == 202
                target = f"{location}?digest={digest_of(blob)}"
                assert client.request("PUT", target, blob[half:]).status == 201
            manifest = image(b"{}", [BLOB])
            target = f"/v2/{NAME}/manifests/latest"
            put = client.request("PUT", target, manifest.body, content_type=manifest.media_type)
            assert put.status == 201
            assert client.request("GET", target).body == manifest.body
            assert client.request("GET", f"/v2/{NAME}/blobs/{digest_of(BLOB)}").body == BLOB
            head = client.request("HEAD", f"/v2/{NAME}/blobs/{digest_of(BLOB)}")
            assert (head.headers["content-length"], head.body) == (str(len(BLOB)), b"")
            unknown = client.request("GET", f"/v2/{NAME}/manifests/none")
            assert json.loads(unknown.body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
            assert client.request("DELETE", "/v2/").status == 405


def test_plain_http_on_the_tls_port(secure: Server) -> None:
    """It is closed at once, and the server goes on."""
    with secure.connect() as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" not in plain.recv(1000)


@pytest.mark.parametrize("wrong", ["no such file", "not a certificate", "another key", "key alone"])
def test_wrong_files_are_one_line(identity: Identity, tmp_path: Path, wrong: str) -> None:
    """Told before anything is served, without a traceback."""
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    certificate, key = identity.certificate, identity.key
    if wrong == "no such file":
        certificate = tmp_path / "missing.pem"
    elif wrong == "not a certificate":
        certificate = broken
    elif wrong == "another key":
        key = broken
    options = [f"http.tls_key={key}"]
    if wrong != "key alone":
        options.append(f"http.tls_certificate={certificate}")
    command = [sys.executable, "-m", "trioreg", "serve", "--storage", str(tmp_path), "--bind", "127.0.0.1:0"]
    for option in options:
        command += ["--set", option]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode in (1, 2)
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
