"""The budget: all blocks of all transfers, and who may hold how many.

Rule: memory of a transfer is blocks held × block size, and the sum over all transfers never passes the
total. When it is spent, receivers wait their turn: one block of each client, then of each again. Nobody
who waits for a block has one, and whoever has one gives it back without needing another; so no deadlock.

The free blocks form a stack, so that light load stays on a few warm ones; those that were not touched
between two calls of `trim` give their pages back to the system.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import trio

from trioreg.pipeline.turns import Turns, client

PAGE = mmap.PAGESIZE


class Block:
    """A page-aligned buffer: `view[start:end]` are the bytes it carries.

    `start` puts them where a page of the file begins at a page of memory (direct writes want that).
    """

    __slots__ = ("_memory", "end", "start", "view", "warm")

    def __init__(self, size: int):
        # Private: pages of a shared mapping, which is the default, outlive MADV_DONTNEED in the kernel.
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._memory)
        self.start = self.end = 0
        self.warm = True

    def place(self, offset: int) -> None:
        """Be empty, for bytes that go to `offset` of a file."""
        self.start = self.end = offset % PAGE

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def carried(self) -> memoryview:
        return self.view[self.start : self.end]

    @property
    def full(self) -> bool:
        return self.end == len(self.view)

    def cool(self) -> None:
        """Give the pages back; the block stays usable and its content is lost."""
        self._memory.madvise(mmap.MADV_DONTNEED)
        self.warm = False


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    block_size: int
    total: int
    held: int
    waiting: int
    warm: int


class Budget:
    """`total` bytes in blocks of `block_size`, both multiples of the page size."""

    def __init__(self, total: int, block_size: int):
        if block_size % PAGE or block_size <= 0:
            raise ValueError(f"a block is a multiple of {PAGE} bytes")
        if total < block_size:
            raise ValueError("the budget does not hold one block")
        self.block_size = block_size
        self._count = total // block_size
        self._left = self._count
        self._waiting: Turns[trio.Event] = Turns()
        self._free: list[Block] = []
        self._made = 0
        self._least_free = 0

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return self._count * self.block_size

    @property
    def is_scarce(self) -> bool:
        """Whether the half of the blocks is taken."""
        return 2 * self._left < self._count

    async def acquire(self) -> Block:
        """An empty block, in the turn of the client (`turns.client`). Cancelling gives up the turn."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._left:
            self._left -= 1
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait(client.get())
        if self._free:
            block = self._free.pop()
            self._least_free = min(self._least_free, len(self._free))
        else:
            block = Block(self.block_size)
            self._made += 1
        block.start = block.end = 0
        block.warm = True
        return block

    def release(self, block: Block) -> None:
        self._free.append(block)
        self._give()

    async def _wait(self, client: str) -> None:
        turn = trio.Event()
        self._waiting.add(client, turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._give()
            else:
                self._waiting.remove(client, turn)
            raise

    def _give(self) -> None:
        """A block is free: it belongs to whose turn it is, who need not have woken up yet."""
        following = self._waiting.next()
        if following is None:
            self._left += 1
        else:
            following[1].set()

    def trim(self) -> None:
        """Give back the pages of the blocks that nobody took since the last call."""
        for block in self._free[: self._least_free]:
            if block.warm:
                block.cool()
        self._least_free = len(self._free)

    def statistics(self) -> BudgetStatistics:
        return BudgetStatistics(
            block_size=self.block_size,
            total=self._count,
            # Those that belong to a task which has not woken up yet among them.
            held=self._count - self._left,
            waiting=len(self._waiting),
            warm=self._made - sum(not block.warm for block in self._free),
        )


class ByteGate:
    """Lets at most `total` bytes through at a time: for what must be whole in memory (manifests).

    A request is granted whole or waits, first come, first served; one over the total is granted alone.
    """

    def __init__(self, total: int):
        self._total = total
        self._left = total
        self._queue: deque[tuple[int, trio.Event]] = deque()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes of the gate. Cancelling gives up the place in the queue."""
        size = min(size, self._total)
        await self._wait(size)
        try:
            yield
        finally:
            self._give(size)

    async def _wait(self, size: int) -> None:
        if not self._queue and size <= self._left:
            self._left -= size
            return
        place = (size, trio.Event())
        self._queue.append(place)
        try:
            await place[1].wait()
        except BaseException:
            if place[1].is_set():
                self._give(size)
            else:
                self._queue.remove(place)
                self._give(0)
            raise

    def _give(self, size: int) -> None:
        self._left += size
        while self._queue and self._queue[0][0] <= self._left:
            granted, event = self._queue.popleft()
            self._left -= granted
            event.set()


class Share:
    """What the fronts' own buffers share: the more exchanges at once, the smaller each reads and sends.

    A front that frames messages for us (Hypercorn) copies bytes through queues which no block bounds.
    With `total` bytes for all, `copies` of one piece in flight an exchange, and n exchanges, a piece is
    ``total / (copies × n)``, within `smallest` and `largest`.
    """

    # A read of Hypercorn lives as: the bytes it received, h11's buffer, the event cut from it, and the
    # message that waits for the handler.
    copies = 4
    smallest = 8 * 1024
    largest = 256 * 1024

    def __init__(self, total: int):
        self._total = total
        self._sharing = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Be one of those who share."""
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1

    def piece(self) -> int:
        """Bytes that one exchange may now read or send at a time."""
        fair = self._total // (self.copies * max(1, self._sharing))
        return max(self.smallest, min(self.largest, fair))
