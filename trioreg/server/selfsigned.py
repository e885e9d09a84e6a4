"""A certificate that signs itself, for labs (`http.tls_self_signed`).

::

    <storage>/tls/self-signed.crt     the certificate, for clients to trust
    <storage>/tls/self-signed.pem     certificate and key; mode 0600

Rule: it is kept, so that clients which trust it go on doing so, and made anew a month before it ends. Of
several processes that make one at once, the first one's stays.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import socket
import ssl
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trioreg.auth.robots import write_private
from trioreg.config import Config, ConfigError

if TYPE_CHECKING:
    from cryptography.x509 import KeyUsage

_DAYS = 365
_RENEW_AFTER_SECONDS = 335 * 86400


def self_signed(config: Config) -> Path:
    """The file with certificate and key. Raises OSError, or ConfigError without the package for it."""
    directory = config.storage_path / "tls"
    both, public = directory / "self-signed.pem", directory / "self-signed.crt"
    if not (both.exists() and time.time() - both.stat().st_mtime < _RENEW_AFTER_SECONDS):
        try:
            certificate, key = _make(config.http_bind.host)
        except ModuleNotFoundError as error:
            why = f"http.tls_self_signed needs the package {error.name}: install trioreg[auth]"
            raise ConfigError(why) from None
        directory.mkdir(parents=True, exist_ok=True)
        both.unlink(missing_ok=True)
        with suppress(FileExistsError):
            write_private(both, certificate + key)
        write_public(public, both.read_bytes().partition(b"-----BEGIN PRIVATE")[0])
    return both


def fingerprint(file: Path) -> str:
    """SHA-256 of the certificate in a file, as browsers and openssl show it."""
    certificate, _, _ = file.read_text().partition("-----BEGIN PRIVATE")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    return digest.hex(":").upper()


def _make(host: str) -> tuple[bytes, bytes]:
    """Certificate and key (PEM), for `host`, this machine's name, and localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trioreg")])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = []
    for each in dict.fromkeys([host, socket.gethostname(), "localhost", "127.0.0.1", "::1"]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            names += [x509.DNSName(each)] if each.isascii() and each else []
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        # Who trusts it trusts this server and nothing that its key might sign.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


def _key_usage() -> KeyUsage:
    """To sign handshakes with, and nothing else."""
    from cryptography.x509 import KeyUsage

    return KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_public(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_bytes(data)
    temporary.replace(path)
