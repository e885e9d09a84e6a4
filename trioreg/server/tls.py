"""TLS: the context of new handshakes, made again when its files change; names in client certificates.

Rules: connections keep the context that they began with, so no transfer notices. Files that do not go
together, or cannot be read, change nothing: the context before stays in force, and one error is logged. Keys
are read where we are, as other small local files; that takes about a millisecond, once for each change.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trioreg.config import Config
from trioreg.logs import Log

_log = Log(__name__)

_LOOK_SECONDS = 1.0

_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


def tls_context(
    certificate: Path, key: Path, *, http2: bool, client_ca: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.2 or later (RFC 9325). Raises OSError or ssl.SSLError for files that cannot be used.

    With `client_ca`, certificates of clients are asked for and verified. Who has none may still connect:
    whether that is enough is for access control to say.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class Certificates:
    """Raises OSError or ssl.SSLError when the first files cannot be used. `clock`: monotonic seconds."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        http2: bool,
        client_ca: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._files = (certificate, key, client_ca)
        self._http2 = http2
        self._clock = clock
        self._looked = clock()
        self._stamps = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        now = self._clock()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                self._renew()
        return self._context

    def _renew(self) -> None:
        try:
            self._context = self._load()
        except OSError as error:  # ssl.SSLError is one
            _log.error("new certificate not usable, the one before stays in force", reason=str(error))
            return
        _log.info("new certificate", file=str(self._files[0]))

    def _load(self) -> ssl.SSLContext:
        certificate, key, client_ca = self._files
        return tls_context(certificate, key, http2=self._http2, client_ca=client_ca)

    def _look(self) -> tuple[object, ...]:
        return tuple(_stamp(each) for each in self._files if each is not None)


def certificates(config: Config) -> Certificates:
    """Those of the settings; one that signs itself is made if need be, and its fingerprint printed."""
    certificate, key = config.http_tls_certificate, config.http_tls_key
    if certificate is None or key is None:
        from trioreg.server.selfsigned import fingerprint, self_signed

        certificate = key = self_signed(config)
        print(f"trioreg: certificate SHA-256 {fingerprint(certificate)}", file=sys.stderr)  # noqa: T201
    return Certificates(certificate, key, http2=config.http_http2, client_ca=config.http_tls_client_ca)


def client_name(certificate: dict[str, Any] | None) -> str | None:
    """Whom a verified certificate names (`ssl.SSLSocket.getpeercert`): its common name, else an alternative.

    None without a certificate, or if it names nobody by text (RFC 9525 would have us ignore the common name
    of servers; of clients it is what people set).
    """
    if not certificate:
        return None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    names = [value for kind, value in subject if kind == "commonName"]
    names += [
        value for kind, value in certificate.get("subjectAltName", ()) if kind in ("email", "DNS", "URI")
    ]
    return next((name for name in names if _NAME.fullmatch(name)), None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
