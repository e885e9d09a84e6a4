"""Connections that do nothing: so many of them, each kept after two requests.

Rule: they are held by this process, in plain sockets, because a client process would hold tasks for them.
"""

import contextlib
import resource
import socket
from collections.abc import Iterator

from perf.plan import KIB
from perf.run import CaseFailed, Run

CONNECTIONS = 10_000
BATCH = 100  # connect, ask and read in turn: less than the backlog, and less than a second each
SECONDS = 20.0
PING = b"GET /v2/ HTTP/1.1\r\nHost: perf\r\n\r\n"


def idle_connections(run: Run, count: int = CONNECTIONS) -> int:
    """Peak RSS with `count` idle connections, and what each of them takes."""
    with descriptors(count + 200), contextlib.ExitStack() as stack:
        clients: list[socket.socket] = []
        while len(clients) < count:
            batch = [stack.enter_context(connect(run)) for _ in range(BATCH)]
            for _ in range(2):
                ask(batch)
            clients += batch
        resting = run.sampler.rest(2.0)
        ask(clients[:BATCH] + clients[-BATCH:])
        each = (resting - run.outcome.base) / count
        run.outcome.notes.append(f"{each / KIB:.1f} KiB a connection")
        run.outcome.open_peak = count
        run.outcome.done = len(clients)
    return run.sampler.peak().rss


def connect(run: Run) -> socket.socket:
    return socket.create_connection(("127.0.0.1", run.server.port), SECONDS)


def ask(clients: list[socket.socket]) -> None:
    """A request on each; CaseFailed if one is not answered."""
    for client in clients:
        client.sendall(PING)
    for client in clients:
        if not client.recv(4 * KIB).startswith(b"HTTP/1.1 200 "):
            raise CaseFailed("an idle connection was closed, or not served")


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """So many descriptors may be open meanwhile. CaseFailed if the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise CaseFailed(f"needs {count} descriptors, the system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
