"""Scripts run in threads without Python: nobody fights for the interpreter, and Trio wakes once for many.

Rule: a script is waited for, whatever is cancelled; it is cancelled before it begins or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENOENT
from functools import cache
from typing import Any

import trio

from trioreg.metrics import SYNC_SECONDS
from trioreg.storage.filesystem.changes import Changes
from trioreg.storage.filesystem.disk import Disk
from trioreg.storage.filesystem.script import TRIES, Script, run_steps

# One works while another waits for the disk. More share fewer syncs.
_THREADS = 2


@cache
def native_scripts() -> Any:
    """The module `_scripts`; None where it was not built.

    ``TRIOREG_TEST_NO_ENGINE=1`` leaves it out, so that tests can run what serves without a compiler.
    """
    if os.environ.get("TRIOREG_TEST_NO_ENGINE"):
        return None
    try:
        from trioreg.storage.filesystem import _scripts
    except ImportError:
        return None
    return _scripts


class Scripts:
    """Runs scripts over `disk`; call by call, among `changes`, where that matters or nothing was built."""

    def __init__(self, disk: Disk, changes: Changes):
        self._disk = disk
        self._changes = changes
        self._native: Any = native_scripts() if disk.plain else None
        self._rounds: Any = None
        self._under_way = 0

    async def run(self, write: Callable[[Script], None]) -> Script:
        """Run the script that `write` writes down; again when a directory was tidied away under our hands.

        Raises OSError of the call that failed.
        """
        if self._native is None:
            return await self._changes.run(run_steps(self._disk, write))
        await trio.lowlevel.checkpoint_if_cancelled()
        for left in reversed(range(TRIES)):
            script = Script(self._disk)
            write(script)
            await self._run(script)
            if script.failed < 0:
                break
            script.vanished()
            if script.errno != ENOENT or not left:
                raise _error_of(script)
        again = script
        while directories := again.doubtful():
            again = Script(self._disk)
            again.settle(*directories)
            await self._run(again)
            if again.failed >= 0:
                raise _error_of(again)
        return script

    async def _run(self, script: Script) -> None:
        self._rounds = self._rounds or self._native.Rounds(_THREADS)  # not before a fork
        self._rounds.submit(script.calls, (script, trio.lowlevel.current_task()))
        self._under_way += 1
        if self._under_way == 1:
            trio.lowlevel.spawn_system_task(self._hand_out)
        await trio.lowlevel.wait_task_rescheduled(_uncancellable)
        if script.failed < 0:
            script.done()

    async def _hand_out(self) -> None:
        """Wake who waits for a script that ended, as long as there are any."""
        while self._under_way:
            await trio.lowlevel.wait_readable(self._rounds.fileno())
            ended, syncs = self._rounds.ended()
            for (script, task), failed, errno, existed in ended:
                script.failed, script.errno, script.existed = failed, errno, existed
                self._under_way -= 1
                trio.lowlevel.reschedule(task)
            for is_directory, seconds in syncs:
                kind = "directory" if is_directory else "data"
                SYNC_SECONDS.observe_in_thread(seconds, SYNC_SECONDS.at(kind))


def _error_of(script: Script) -> OSError:
    return OSError(script.errno, os.strerror(script.errno), str(script.calls[script.failed][1]))


def _uncancellable(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED
