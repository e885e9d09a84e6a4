"""What is done outside of requests, for the audit log and webhooks: by commands, retention and collection.

Rule: as a request does it, when the thing is done and before anybody is told that it is. A command opens the
audit log and the queues of webhooks before it begins: where that is not allowed it does nothing. What it puts
into a queue a server delivers, at its start or within half a minute.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
import trio

from trioreg.config import Config
from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, Tag
from trioreg.server.notices import end_sinks, open_sinks

if TYPE_CHECKING:
    from trioreg.events.event import Recorder

T = TypeVar("T")

# Lists in reports have lines of their own, in the log or on the terminal.
_COUNTED = (bool, int, float, str)


class Told:
    """Records in somebody's name; with no recorder nothing. `recorder` may answer another one each time."""

    def __init__(self, identity: str, recorder: Callable[[], Recorder | None]):
        self._identity = identity
        self._recorder = recorder

    def by(self, identity: str) -> Told:
        return Told(identity, self._recorder)

    async def removed(self, name: RepositoryName, tag: Tag | None, digest: Digest) -> None:
        """A tag was removed, or without one a manifest."""
        recorder = self._recorder()
        if recorder is not None:
            from trioreg.events.event import Event

            target: Literal["tag", "manifest"] = "manifest" if tag is None else "tag"
            event = Event(action="delete", target=target, repository=name, tag=tag or "", digest=str(digest),
                          identity=self._identity)  # fmt: skip
            await recorder.record(event)

    async def did(self, action: Literal["upkeep", "robot"], what: str, report: object = None) -> None:
        """Something that has no digest: `what`, with the numbers of a report."""
        recorder = self._recorder()
        if recorder is not None:
            from trioreg.events.event import Event, clipped

            detail = f"{what}: {_numbers(report)}" if report is not None else what
            await recorder.record(Event(action=action, detail=clipped(detail), identity=self._identity))


NOBODY = Told("", lambda: None)


@asynccontextmanager
async def told_by_command(config: Config) -> AsyncIterator[Told]:
    """For a command. Raises OSError when the audit log or a queue cannot be opened."""
    sinks = await trio.to_thread.run_sync(open_sinks, config)
    try:
        yield Told(f"local/{_user()}", lambda: sinks if sinks.all else None)
    finally:
        with trio.CancelScope(shield=True):
            await end_sinks(sinks)


def do_and_record(config: Config, what: str, do: Callable[[], T]) -> T:
    """Do something with robots, and record it if nothing was raised. Blocks; OSError as above."""

    async def both() -> T:
        async with told_by_command(config) as told:
            result = do()
            await told.did("robot", what)
            return result

    return trio.run(both)


def record_now(config: Config, what: str, report: object) -> None:
    """For a command that has made a whole storage, and could open nothing in it before. Blocks; OSError."""

    async def record() -> None:
        async with told_by_command(config) as told:
            await told.did("upkeep", what, report)

    trio.run(record)


def _numbers(report: object) -> str:
    found = msgspec.to_builtins(report)
    return ", ".join(f"{name}={value}" for name, value in found.items() if isinstance(value, _COUNTED))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
