"""One thing that was done, or refused, and who did it.

Rule: an event is made when the thing is done and durable, and recorded before its answer is sent; so whoever
was answered finds it recorded, and what is recorded was done (or, for ``denied``, was not).
"""

from __future__ import annotations

import time
from typing import Literal, Protocol, TypeAlias

import msgspec

What: TypeAlias = Literal["push", "pull", "delete", "denied", "settings", "upkeep", "robot"]

# Of what a client chooses freely (media type, user agent) so many characters are kept: a line stays < 8 KiB.
_TEXT = 512


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`was`: the digest that the tag had when the request came. `size` in bytes. `time` in seconds.

    `source`: the repository that a blob was mounted from. `code`: of the refusal.
    """

    time: float = msgspec.field(default_factory=time.time)
    action: What
    target: Literal["", "manifest", "blob", "tag"] = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    was: str = ""
    media_type: str = ""
    size: int | None = None
    source: str = ""
    code: str = ""
    detail: str = ""
    identity: str = ""
    peer: str = ""
    request: str = ""
    agent: str = ""


def clipped(text: str) -> str:
    return text[:_TEXT]


class Recorder(Protocol):
    async def record(self, event: Event) -> None:
        """Return when the event is on the disk, or could not be put there: never raises, never waits long.

        A pull is only taken note of, and is on the disk a moment later. Cancellation does not reach it.
        """
