"""Who waits, and whose turn it is: one of each client, then one of each again.

Rule: a client's turn does not depend on how many it has waiting; among its own the first came first. A
client that comes stands behind the others. Bounded by who fills it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")

# For whom this task works (`api.clients`), "" if nobody said.
client: ContextVar[str] = ContextVar("client", default="")


class Turns(Generic[T]):
    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, client: str, waiter: T) -> None:
        queue = self._queues.get(client)
        if queue is None:
            self._queues[client] = queue = deque()
        queue.append(waiter)
        self._count += 1

    def remove(self, client: str, waiter: T) -> None:
        """It waits no longer. ValueError or KeyError if it did not."""
        queue = self._queues[client]
        queue.remove(waiter)
        self._count -= 1
        if not queue:
            del self._queues[client]

    def next(self, may: Callable[[str], bool] | None = None) -> tuple[str, T] | None:
        """Take out whose turn it is, of the clients that `may`; None if there is nobody."""
        client = next((each for each in self._queues if may is None or may(each)), None)
        if client is None:
            return None
        queue = self._queues[client]
        waiter = queue.popleft()
        self._count -= 1
        if queue:
            self._queues.move_to_end(client)
        else:
            del self._queues[client]
        return client, waiter
