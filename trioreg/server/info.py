"""What runs here, and why: the answer to ``trioreg info``."""

from __future__ import annotations

import platform
from importlib.metadata import version

from trioreg import __version__
from trioreg.pipeline.digests import native_engine, openssl_works
from trioreg.storage.filesystem.threads import native_scripts

_PACKAGES = ("trio", "hypercorn", "quart", "quart-trio", "msgspec")


def describe() -> list[tuple[str, str]]:
    """Rows of a name and what is to be said of it."""
    rows = [("trioreg", __version__), ("python", platform.python_version())]
    rows += [(package, version(package)) for package in _PACKAGES]
    return [*rows, *_engine(), _changes()]


def _changes() -> tuple[str, str]:
    how = "compiled: in threads without Python" if native_scripts() else "in Python, call by call"
    return "disk changes", how


def _engine() -> list[tuple[str, str]]:
    native = native_engine()
    if native is not None:
        found = native.capabilities()
        ways = ", ".join(
            f"{name} {lanes} lane{'s' if lanes > 1 else ''} {speed:.2f} GB/s"
            for name, (lanes, speed) in found["ways"].items()
        )
        return [
            ("digest engine", "compiled: hashes uploads side by side, and writes them in the same call"),
            ("measured", ways),
            ("taken", f"{found['choice'][0]} for one stream, {found['choice'][-1]} for sixteen"),
            ("sha512", found["single_sha512"]),
        ]
    if openssl_works():
        why = "OpenSSL, each upload by itself: the compiled engine was not built (no compiler when installed)"
    else:
        why = "hashlib: neither the compiled engine nor OpenSSL's state is here; a resume reads bytes again"
    return [("digest engine", why)]
