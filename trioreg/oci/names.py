"""Grammar of repository names, tags and upload ids.

Rule: each grammar stands beside the text it comes from, and a value of these types has passed it. None
of them can hold ``..``, an empty component or a NUL, so none can leave the storage root.
"""

from __future__ import annotations

import re
import uuid
from typing import NewType

from trioreg.oci.errors import ErrorCode, RegistryError

RepositoryName = NewType("RepositoryName", str)
Tag = NewType("Tag", str)
UploadId = NewType("UploadId", str)

# spec.md, "Pulling manifests": <name> MUST match
#   [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")

# "Many clients impose a limit of 255 characters on the length of the concatenation of the registry
# hostname and name": we take names up to 255 by themselves. It also keeps a component within NAME_MAX.
NAME_MAX_LENGTH = 255

# spec.md: <reference> as a tag MUST be at most 128 characters in length and MUST match
#   [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# Ours: the text form of a version 4 UUID (RFC 9562), because clients read it as Docker-Upload-UUID.
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_name(text: str) -> RepositoryName:
    """A repository name, or NAME_INVALID."""
    if len(text) > NAME_MAX_LENGTH or not _NAME.fullmatch(text):
        raise RegistryError(ErrorCode.NAME_INVALID, {"name": text[: NAME_MAX_LENGTH + 1]})
    return RepositoryName(text)


def parse_tag(text: str) -> Tag:
    """A tag, or TAG_INVALID."""
    if not _TAG.fullmatch(text):
        raise RegistryError(ErrorCode.TAG_INVALID, {"tag": text[:129]})
    return Tag(text)


def parse_upload_id(text: str) -> UploadId:
    """An upload id of ours, or BLOB_UPLOAD_INVALID."""
    if not _UPLOAD_ID.fullmatch(text):
        raise RegistryError(ErrorCode.BLOB_UPLOAD_INVALID, {"upload": text[:64]})
    return UploadId(text)


def new_upload_id() -> UploadId:
    """An id that cannot be guessed (122 random bits)."""
    return UploadId(str(uuid.uuid4()))
