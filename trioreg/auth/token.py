"""Our own tokens: signed, short-lived, as docker clients expect them.

Claims: https://distribution.github.io/distribution/spec/auth/jwt/. Only this registry makes and reads them,
so issuer and audience are both its service name, and one key is enough.

Rule: the algorithm is the key's, never the token's. The key lies in a file that only we may read; whoever
starts first makes it, also of several processes at once.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from trioreg.auth.authorizer import BadCredentials, IssuedToken
from trioreg.auth.robots import write_private
from trioreg.auth.scopes import Scope
from trioreg.auth.watched import read_bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Key: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey

Algorithm: TypeAlias = Literal["ES256", "EdDSA"]

# Clocks of several replicas differ a little; tokens begin to hold so much before they were made.
_SKEW_SECONDS = 5

# A head is 32 KiB by default; no token that we read needs half of that.
MOST_CHARACTERS = 16 * 1024


class TokenIssuer:
    """Raises OSError or ValueError if the key file cannot be made or used. Loads cryptography."""

    def __init__(self, key_file: Path, algorithm: Algorithm, service: str, seconds: int):
        import jwt

        self._jwt = jwt
        self._key = load_or_make_key(key_file, algorithm)
        self._public = self._key.public_key()
        self._algorithm = algorithm_of(self._key)
        self._service = service
        self._seconds = seconds
        self._kid = _key_id(self._key)

    def issue(self, subject: str, scopes: Iterable[Scope]) -> IssuedToken:
        """A token for `subject` ("" is anonymous) that is good for `scopes`, which the caller has checked."""
        now = int(time.time())
        claims = {
            "iss": self._service,
            "aud": self._service,
            "sub": subject,
            "iat": now,
            "nbf": now - _SKEW_SECONDS,
            "exp": now + self._seconds,
            "jti": secrets.token_urlsafe(12),
            "access": [
                {"type": each.kind, "name": each.name, "actions": sorted(each.actions)} for each in scopes
            ],
        }
        text = self._jwt.encode(claims, self._key, self._algorithm, headers={"kid": self._kid})
        return IssuedToken(text, now, self._seconds)

    def is_ours(self, header: Mapping[str, Any]) -> bool:
        """Whether the (unverified) header of a token names our key."""
        return header.get("kid") == self._kid

    def verify(self, text: str) -> dict[str, Any]:
        """The claims. Raises BadCredentials."""
        try:
            return self._jwt.decode(
                text,
                self._public,
                algorithms=[self._algorithm],
                audience=self._service,
                issuer=self._service,
                options={"require": ["exp", "nbf", "iat", "sub", "aud", "iss"]},
            )
        except self._jwt.InvalidTokenError as error:
            raise BadCredentials(str(error)) from None


def scopes_of(claims: Mapping[str, Any]) -> tuple[Scope, ...]:
    """The ``access`` claim; what is malformed in it grants nothing, and a pattern is no name."""
    access = claims.get("access")
    found = []
    for each in access if isinstance(access, list) else []:
        match each:
            case {"type": str(kind), "name": str(name), "actions": list(actions)}:
                words = frozenset(word for word in actions if isinstance(word, str))
                if words and "*" not in name and "?" not in name:
                    found.append(Scope(kind, name, words))
    return tuple(found)


def load_or_make_key(path: Path, algorithm: Algorithm) -> Key:
    """The private key (PEM, PKCS 8) in a file, which is made with mode 0600 if it is not there."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else _ed25519()
        pem = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            write_private(path, pem)
        except FileExistsError:
            pass  # Another process was first: its key is ours.
    try:
        key = serialization.load_pem_private_key(read_bounded(path), password=None)
    except (ValueError, TypeError):  # no key, or one with a passphrase
        raise ValueError(f"{path}: not a private key without a passphrase (PEM)") from None
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    if not (is_p256 or isinstance(key, ed25519.Ed25519PrivateKey)):
        raise ValueError(f"{path}: neither a P-256 nor an Ed25519 key")
    assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
    return key


def _ed25519() -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


def algorithm_of(key: Key) -> Algorithm:
    return "EdDSA" if type(key).__name__.startswith("Ed25519") else "ES256"


def _key_id(key: Key) -> str:
    """Names the public key, so that a token of a key that was replaced is told from a forged one."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()[:32]
