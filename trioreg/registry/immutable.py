"""Tags that cannot be moved once they are set: by patterns of repository and tag.

Rule: what decides is looked at and the tag set in one lock between processes, so of two pushes of a new tag
one wins. The same manifest again is fine, and who may delete may delete; then the tag can be set anew.
"""

from __future__ import annotations

from typing import TypeAlias

from trioreg.oci.digest import Digest
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.oci.patterns import matches

# Pairs of patterns, for the name of a repository and for a tag.
TagPatterns: TypeAlias = tuple[tuple[str, str], ...]


def is_immutable(patterns: TagPatterns, name: RepositoryName, reference: Tag | Digest) -> bool:
    """Whether a reference is a tag that stays where it is."""
    if isinstance(reference, Digest):
        return False
    return any(matches(names, name) and matches(tags, reference) for names, tags in patterns)


def refused(name: RepositoryName, reference: Tag | Digest) -> RegistryError:
    detail = {"name": name, "tag": str(reference), "reason": "it is set already, to another manifest"}
    return RegistryError(ErrorCode.TAG_IMMUTABLE, detail)
