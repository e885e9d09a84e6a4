"""What a front must implement so that a body can be read: wait without a block, then fill one.

Rule: `ready` is the only wait, and nobody holds a block in it; `fill` never waits and is the only way to
read a body. So a client that sends nothing costs no block.
"""

from __future__ import annotations

from typing import Protocol


class ClientDisconnected(Exception):
    """The peer went away before its message ended, or spoke no HTTP."""


class ClientStalled(ClientDisconnected):
    """The peer moved no byte for the stall limit."""


class BodyMalformed(ClientDisconnected):
    """The framing of the body is broken: where it ends cannot be known any more."""


class Body(Protocol):
    """A request body. For one reader."""

    @property
    def length(self) -> int | None:
        """Bytes announced by Content-Length, None when only the end tells."""

    async def ready(self) -> bool:
        """Wait until `fill` has something to give; False once the body has ended.

        Raises ClientDisconnected, or ClientStalled after the stall limit. May be cancelled and called
        again without losing a byte.
        """

    def fill(self, view: memoryview) -> int:
        """Move at most ``len(view)`` bytes that have arrived into `view`; how many."""
