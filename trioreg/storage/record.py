"""The record of an upload session: versioned, engine-neutral, checked.

It holds two checkpoints. `written`: all its bytes were handed to the kernel, which survives the death of
our process but not of the machine. `synced`: its bytes were made durable before the record was saved.

Rule (DESIGN, rule 1): after a restart in the same boot `written` is true; in another boot only `synced`
is. Either counts only when the file is at least as long, else the next older one, else 0. A record that
is torn or of another version is no record: the session is unknown, and its client starts again.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated

import msgspec

from trioreg.oci.digest import Algorithm
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.storage.base import Checkpoint, UploadInfo

VERSION = 1
START = Checkpoint(0, None)

_Offset = Annotated[int, msgspec.Meta(ge=0)]


class _Point(msgspec.Struct, array_like=True, frozen=True):
    offset: _Offset
    digest: bytes | None


class Record(msgspec.Struct, frozen=True):
    """One session's state, as it stands in its file (JSON, then a CRC-32 of it)."""

    version: int
    repository: str
    algorithm: Algorithm
    started: float
    boot: str
    written: _Point = _Point(0, None)
    synced: _Point = _Point(0, None)
    owner: str | None = None  # not in records that were begun before there was one

    def after(self, at: Checkpoint, boot: str, *, synced: bool) -> Record:
        """The record once the session came to `at`."""
        point = _Point(*at)
        return msgspec.structs.replace(
            self, boot=boot, written=point, synced=point if synced else self.synced
        )

    @property
    def synced_checkpoint(self) -> Checkpoint:
        return Checkpoint(self.synced.offset, self.synced.digest)

    def resume_point(self, boot: str, size: int) -> Checkpoint:
        """The newest checkpoint that is certain for a file of `size` bytes, in the boot `boot`."""
        candidates = (self.written, self.synced) if boot == self.boot else (self.synced,)
        for point in candidates:
            if point.offset <= size:
                return Checkpoint(point.offset, point.digest)
        return START

    def info(self, upload: UploadId, offset: int) -> UploadInfo:
        return UploadInfo(
            upload, RepositoryName(self.repository), self.algorithm, offset, self.started, self.owner
        )


def new_record(
    repository: RepositoryName, algorithm: Algorithm, started: float, boot: str, owner: str | None = None
) -> Record:
    return Record(VERSION, repository, algorithm, started, boot, owner=owner)


def encode(record: Record) -> bytes:
    body = msgspec.json.encode(record)
    return body + b"\n%08x\n" % zlib.crc32(body)


def decode(data: bytes) -> Record | None:
    """The record in a file's bytes; None if there is none that can be trusted."""
    body, _, check = data.partition(b"\n")
    if check != b"%08x\n" % zlib.crc32(body):
        return None
    try:
        record = msgspec.json.decode(body, type=Record)
    except msgspec.MsgspecError:
        return None
    return record if record.version == VERSION else None


def boot_id() -> str:
    """Names this boot of the machine (random(4)); without one, no record outlives the process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import uuid

        return str(uuid.uuid4())
