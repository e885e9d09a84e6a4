"""Whose an upload session is stands in its record, and records from before that are read."""

from __future__ import annotations

import json
import zlib

from trioreg.oci.names import RepositoryName, UploadId
from trioreg.storage.record import decode, encode, new_record

NAME = RepositoryName("some/name")
UPLOAD = UploadId("00000000-0000-4000-8000-000000000000")


def test_the_owner_is_recorded() -> None:
    """It comes back as it was."""
    found = decode(encode(new_record(NAME, "sha256", 1.0, "boot", "ann")))
    assert found is not None
    assert found.info(UPLOAD, 0).owner == "ann"


def test_a_record_without_an_owner_is_anybodys() -> None:
    """It was written by a version that knew no owners."""
    document = json.loads(encode(new_record(NAME, "sha256", 1.0, "boot")).partition(b"\n")[0])
    del document["owner"]
    body = json.dumps(document).encode()
    found = decode(body + b"\n%08x\n" % zlib.crc32(body))
    assert found is not None
    assert found.info(UPLOAD, 0).owner is None
