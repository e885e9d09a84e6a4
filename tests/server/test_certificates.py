"""Certificates that change while the server runs, certificates of clients, and one of our own making."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import ANSWER_SECONDS, Server, digest_of, seeded_bytes

from trioreg.server.tls import Certificates, client_name

NAME = "some/name"
BLOB = seeded_bytes(3, 300_000)


def make(
    home: Path, name: str, signer: str | None = None, subject: str = "/CN=registry"
) -> tuple[Path, Path]:
    """Certificate and key files `name`, signed by themselves or by those of `signer`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to make a certificate with")
    certificate, key = home / f"{name}.crt", home / f"{name}.key"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", subject, "-addext", "subjectAltName=IP:127.0.0.1"]
    if signer:
        command += ["-CA", str(home / f"{signer}.crt"), "-CAkey", str(home / f"{signer}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


def shown(server: Server) -> bytes:
    """The certificate of a new handshake (DER)."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((server.host, server.port), timeout=ANSWER_SECONDS) as plain,
        context.wrap_socket(plain) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
        assert der is not None
        return der


def test_new_handshakes_get_the_new_certificate(tmp_path: Path) -> None:
    """Files that do not go together change nothing; connections keep the context they began with."""
    now = 0.0
    ours = make(tmp_path, "ours")
    first = Certificates(*ours, http2=False, clock=lambda: now)
    before = first.context()
    other = make(tmp_path, "other")
    os.replace(other[0], ours[0])  # a certificate that is not this key's
    now += 2
    assert first.context() is before
    os.replace(other[1], ours[1])
    assert first.context() is before  # nobody looks so soon
    now += 2
    after = first.context()
    assert after is not before
    ours[0].write_text("nonsense")
    now += 2
    assert first.context() is after
    ours[0].unlink()
    now += 2
    assert first.context() is after


def test_a_transfer_goes_on_while_the_certificate_changes(tmp_path: Path) -> None:
    """Half of an upload before the change, half after it, on one connection."""
    certificate, key = make(tmp_path, "ours")
    new = make(tmp_path, "new")
    settings = {"http.tls_certificate": str(certificate), "http.tls_key": str(key)}
    with Server(tmp_path, settings=settings, tls=ssl.create_default_context(cafile=certificate)) as server:
        old = shown(server)
        connection = http.client.HTTPSConnection(
            server.host, server.port, context=server.tls, timeout=ANSWER_SECONDS
        )
        connection.request(
            "POST",
            f"/v2/{NAME}/blobs/uploads/?digest={digest_of(BLOB)}",
            _halves(server, new, key, certificate),
            {"Content-Length": str(len(BLOB))},
        )
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        connection.close()
        assert shown(server) != old
        assert "new certificate" in server.stderr


def _halves(server: Server, new: tuple[Path, Path], key: Path, certificate: Path) -> Iterator[bytes]:
    yield BLOB[: len(BLOB) // 2]
    old = shown(server)
    os.replace(new[1], key)
    os.replace(new[0], certificate)
    # Each look is a handshake of its own, and a server looks at its files once a second.
    for _ in range(1000):
        if shown(server) != old:
            break
    yield BLOB[len(BLOB) // 2 :]


@pytest.mark.parametrize("front", ["direct", "quart"])
def test_a_client_certificate_is_an_identity(front: str, tmp_path: Path) -> None:
    """Its holder is `cert/NAME` in rules; without one a client is challenged, with a foreign one refused."""
    certificate, key = make(tmp_path, "ours")
    make(tmp_path, "ca", subject="/CN=our clients")
    ann = make(tmp_path, "ann", "ca", "/O=team/CN=ann")
    eve = make(tmp_path, "eve", None, "/CN=ann")
    rules = tmp_path / "access.toml"
    rules.write_text("[[rule]]\nwho = ['cert/ann']\nmay = ['pull']\n")
    settings = {
        "http.tls_certificate": str(certificate),
        "http.tls_key": str(key),
        "http.tls_client_ca": str(tmp_path / "ca.crt"),
        "http.front": front,
        "auth.access": str(rules),
    }

    def trusting(identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=certificate)
        if identity:
            context.load_cert_chain(*identity)
        return context

    with Server(tmp_path, settings=settings) as server:
        server.tls = trusting()
        assert server.request("GET", f"/v2/{NAME}/tags/list").status == 401
        server.tls = trusting(ann)
        assert server.request("GET", "/v2/").status == 200
        assert server.request("GET", f"/v2/{NAME}/tags/list").status == 404
        assert server.request("POST", f"/v2/{NAME}/blobs/uploads/").status == 403
        server.tls = trusting(eve)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            server.request("GET", "/v2/")


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, None),
        ({}, None),
        ({"subject": ((("organizationName", "x"),), (("commonName", "ann"),))}, "ann"),
        ({"subject": (), "subjectAltName": (("IP Address", "::1"), ("DNS", "host"))}, "host"),
        ({"subject": ((("commonName", "a\nb"),),), "subjectAltName": (("email", "a@b"),)}, "a@b"),
        ({"subject": ((("commonName", "x" * 129),),)}, None),
    ],
)
def test_names_in_certificates(certificate: dict[str, object] | None, name: str | None) -> None:
    """The common name, else the first alternative that is text."""
    assert client_name(certificate) == name


def test_a_certificate_of_our_own_making(tmp_path: Path) -> None:
    """`--tls-self-signed` makes one, prints its fingerprint, and keeps it."""
    with Server(tmp_path, options=["--tls-self-signed"]) as server:
        public = server.storage / "tls" / "self-signed.crt"
        server.tls = ssl.create_default_context(cafile=public)
        assert server.url.startswith("https://")
        assert server.request("GET", "/v2/").status == 200
        first = public.read_text()
        both = server.storage / "tls" / "self-signed.pem"
        assert both.stat().st_mode & 0o777 == 0o600
        server.restart()
        assert public.read_text() == first
        printed = re.findall(r"SHA-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})", server.stderr)
        assert len(printed) == 2 and len(set(printed)) == 1


def test_who_trusts_our_own_certificate_trusts_nothing_else(tmp_path: Path) -> None:
    """It is good for this server under each of its names, for strict clients too; its key signs none."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program to verify with")

    def verifies(certificate: Path, *options: str) -> bool:
        command = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(public)]
        return subprocess.run([*command, *options, str(certificate)], capture_output=True).returncode == 0

    with Server(tmp_path, options=["--tls-self-signed"]) as server:
        public = server.storage / "tls" / "self-signed.crt"
        server.tls = ssl.create_default_context(cafile=public)
        server.tls.verify_flags |= ssl.VERIFY_X509_STRICT
        assert server.request("GET", "/v2/").status == 200
        for name in (["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"]):
            assert verifies(public, *name)
        shutil.copy(server.storage / "tls" / "self-signed.pem", tmp_path / "ours.key")
        shutil.copy(public, tmp_path / "ours.crt")
        signed, _ = make(tmp_path, "signed", signer="ours")
        assert not verifies(signed)
