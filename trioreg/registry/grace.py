"""How long a blob must have been left alone before collection may take it: agreed by all processes.

A server refreshes the time of a blob that a client was promised only when it is older than half the grace
period (DESIGN, rule 3), so a collection with a shorter one would take what was promised. Servers write
theirs down when they start; collection waits for the longest, and goes on doing so for as long as it was
after it became shorter. Servers on one storage should have one setting: the last to start is believed.
"""

from __future__ import annotations

import msgspec

from trioreg.storage import layout
from trioreg.storage.base import ObjectStore

_KEY = layout.upkeep("grace")


class _Agreed(msgspec.Struct, frozen=True):
    """`before` holds until `until` (seconds since 1970)."""

    grace: float
    before: float = 0.0
    until: float = 0.0

    def at(self, now: float) -> float:
        return max(self.grace, self.before if now < self.until else 0.0)


async def announce(objects: ObjectStore, grace: float, now: float) -> None:
    """Say which grace period (seconds) this server keeps."""
    known = await _known(objects)
    if known is None:
        agreed = _Agreed(grace)
    elif known.grace == grace:
        return
    else:
        before = known.at(now)
        agreed = _Agreed(grace, before, now + before)
    await objects.put(_KEY, msgspec.json.encode(agreed))


async def agreed_grace(objects: ObjectStore, own: float, now: float) -> float:
    """The grace period that holds for a collection whose own setting is `own` (seconds)."""
    known = await _known(objects)
    return own if known is None else max(own, known.at(now))


async def _known(objects: ObjectStore) -> _Agreed | None:
    data = await objects.get(_KEY)
    try:
        return None if data is None else msgspec.json.decode(data, type=_Agreed)
    except msgspec.MsgspecError:
        return None
