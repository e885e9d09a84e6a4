"""Several processes on one port, over one storage.

Each worker has a listening socket of its own (SO_REUSEPORT: the kernel spreads connections by their
address) and its part of the memory settings. They share nothing but the files: a session that began in
one goes on in any other, because leases are locks between processes.

Rules: this process only watches; it runs no Trio and serves nobody. It keeps the sockets open, so that the
connections that wait for a worker that died wait for its successor. A worker dies with its parent. It
heeds `STOP` and `RELOAD` only: a terminal or a service manager sends its signals to every process of the
group, and the second that a worker got, passed on from here, would mean that it shall not wait for its
transfers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from trioreg.config import Address, Config
from trioreg.metrics import cells

# A worker that cannot live is not started again at once, over and over.
_RESTART_SECONDS = 1.0

_PR_SET_PDEATHSIG = 1  # prctl(2)

# Blocked in a worker until it listens to it (`server.run`), so that none is lost.
STOP = signal.SIGUSR1
# The settings shall be read again; as with STOP, a SIGHUP of the group reaches a worker from here alone.
RELOAD = signal.SIGUSR2

Serve = Callable[[Config, list[socket.socket]], None]


def run_workers(config: Config, serve: Serve, announce: Callable[[int], None]) -> int:
    """Run `config.http_workers` processes until a signal ends them; the exit code.

    `serve` runs in each worker, with that worker's settings and sockets. Raises OSError when it cannot
    listen.
    """
    share, count = share_of(config), config.http_workers
    sockets = [listen(config.http_bind, config.http_backlog)]
    bound = Address(config.http_bind.host, sockets[0][0].getsockname()[1])
    sockets += [listen(bound, config.http_backlog) for _ in range(count - 1)]
    cells.open_slots(count)

    def work(index: int) -> None:
        cells.use_slot(index)
        serve(share, sockets[index])

    watcher = _Watcher(work, count)
    watcher.start()
    announce(bound.port)
    return watcher.run()


class _Watcher:
    def __init__(self, work: Callable[[int], None], count: int):
        self._work = work
        self._pids: dict[int, tuple[int, float]] = {}
        self._count = count
        self._stopping = False
        self._failed = False

    def start(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_reload)
        for index in range(self._count):
            self._start(index)

    def run(self) -> int:
        """Replace who dies, pass signals on; 0 when all ended as they were told."""
        while self._pids:
            pid, status = os.wait()
            if pid in self._pids:
                self._on_exit(*self._pids.pop(pid), status)
        return 1 if self._failed else 0

    def _start(self, index: int) -> None:
        sys.stdout.flush()
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {STOP, RELOAD})
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._pids[pid] = (index, time.monotonic())
            if self._stopping:
                os.kill(pid, STOP)
            return
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, STOP)
            if os.getppid() == parent:
                self._work(index)
            code = 0
        finally:
            # What the parent began is the parent's to end.
            os._exit(code)

    def _on_exit(self, index: int, started: float, status: int) -> None:
        if self._stopping:
            self._failed = self._failed or status != 0
            return
        cells.forget_gauges(index)
        how = os.waitstatus_to_exitcode(status)
        print(f"trioreg: worker {index} ended with {how}; it is replaced", file=sys.stderr)  # noqa: T201
        if time.monotonic() - started < _RESTART_SECONDS:
            time.sleep(_RESTART_SECONDS)
        if not self._stopping:
            self._start(index)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._stopping = True
        self._pass_on(STOP)

    def _on_reload(self, _number: int, _frame: object) -> None:
        self._pass_on(RELOAD)

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in list(self._pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def share_of(config: Config) -> Config:
    """What one worker may use: every setting that bounds memory is the total over all of them."""
    count = config.http_workers
    return replace(
        config,
        memory_budget=config.memory_budget // count,
        memory_front=config.memory_front // count,
        memory_cache=config.memory_cache // count,
    )


def listen(address: Address, backlog: int) -> list[socket.socket]:
    """A listening socket for each address of a host, which other processes of ours may share. OSError."""
    found = socket.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, where in dict.fromkeys(found):
        port = sockets[0].getsockname()[1] if sockets else address.port
        listening = socket.socket(family, kind, protocol)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((where[0], port, *where[2:]))
        listening.listen(backlog)
        sockets.append(listening)
    return sockets
