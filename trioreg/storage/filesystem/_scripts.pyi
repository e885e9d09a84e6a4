"""Scripts of system calls, run in threads without Python; `script` says what they are."""

from collections.abc import Sequence
from typing import final

@final
class Rounds:
    """Threads that take each script to its next sync, sync for all of them at once, and go on."""

    def __new__(cls, threads: int, /) -> Rounds:
        """They begin with the first script. ValueError: not 1 to 16. OSError: no more descriptors."""

    def submit(
        self,
        calls: Sequence[tuple[int, str | int, str | bytes | int | tuple[bytes, int] | None]],
        tag: object,
        /,
    ) -> None:
        """Runs a script; never waits. Objects belong to it until `ended` hands it out.

        OSError: there is no thread, or this process was forked from the one that made this.
        """

    def ended(self) -> tuple[list[tuple[object, int, int, bool]], list[tuple[bool, float]]]:
        """Scripts that ended: tag, the call that failed or -1, its errno, whether a link met a file.

        And the syncs made since the last call, at most 1024: whether of a directory, and seconds.
        """

    def fileno(self) -> int:
        """An eventfd, readable while a script has ended that `ended` has not handed out."""
