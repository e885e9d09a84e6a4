"""A memory cgroup with a hard limit around the server: version 1 and 2, made for a run and removed after it.

The limit counts what the kernel counts: anonymous memory, page cache of the files the server writes and
reads, socket buffers and other kernel memory. The rule: a run that cannot have its cgroup says so before it
starts anything; it never runs without one by accident.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
ENTER = 'echo $$ > "$0" && exec "$@"'  # a shell that moves itself, then becomes the server
REMOVE_SECONDS = 5.0  # the kernel may still count a process that has just ended


class NoCgroup(Exception):
    """There is none to be had here; the message says why."""


@dataclass(frozen=True)
class Hierarchy:
    """Where the memory controller is mounted, and what its files are called."""

    path: Path
    version: int

    @property
    def limit(self) -> str:
        return "memory.limit_in_bytes" if self.version == 1 else "memory.max"

    @property
    def usage(self) -> str:
        return "memory.usage_in_bytes" if self.version == 1 else "memory.current"

    @property
    def kills(self) -> str:
        return "memory.oom_control" if self.version == 1 else "memory.events"

    @property
    def peak(self) -> str:
        return "memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"


def find_hierarchy(mounts: str) -> Hierarchy:
    """From the text of /proc/self/mounts: version 1 where it has the controller, else version 2."""
    second: Hierarchy | None = None
    for line in mounts.splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            return Hierarchy(Path(mount), 1)
        if kind == "cgroup2":
            second = Hierarchy(Path(mount), 2)
    if second is None:
        raise NoCgroup("no cgroup filesystem is mounted")
    return second


@dataclass(frozen=True)
class Cgroup:
    """A group with a limit in bytes."""

    path: Path
    hierarchy: Hierarchy

    def command(self) -> list[str]:
        """What to put before a command so that it runs inside from its first byte."""
        return ["/bin/sh", "-c", ENTER, str(self.path / "cgroup.procs")]

    def usage(self) -> int:
        """Bytes it is charged with now."""
        return int((self.path / self.hierarchy.usage).read_text())

    def peak(self) -> int:
        """The most it was ever charged with; 0 where the kernel does not keep it (version 2 before 5.19)."""
        try:
            return int((self.path / self.hierarchy.peak).read_text())
        except OSError:
            return 0

    def kills(self) -> int:
        """How many processes the kernel killed for want of memory in it."""
        for line in (self.path / self.hierarchy.kills).read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[Cgroup]:
    """A new group below the top of the hierarchy. NoCgroup where that is not possible."""
    hierarchy = find_hierarchy(MOUNTS.read_text())
    path = hierarchy.path / f"trioreg-perf-{os.getpid()}"
    try:
        if hierarchy.version == 2 and "memory" not in (hierarchy.path / "cgroup.controllers").read_text():
            raise NoCgroup(f"{hierarchy.path} has no memory controller")
        if hierarchy.version == 2:
            (hierarchy.path / "cgroup.subtree_control").write_text("+memory")
        path.mkdir()
    except OSError as error:
        why = "root is needed" if os.geteuid() else "the hierarchy may be read-only or delegated elsewhere"
        raise NoCgroup(f"cannot make {path}: {error.strerror}; {why}") from None
    try:
        (path / hierarchy.limit).write_text(str(limit))
        swap = path / ("memory.memsw.limit_in_bytes" if hierarchy.version == 1 else "memory.swap.max")
        with contextlib.suppress(OSError):  # a kernel without swap accounting has no such file
            swap.write_text(str(limit) if hierarchy.version == 1 else "0")
        yield Cgroup(path, hierarchy)
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Once it is empty. NoCgroup when somebody stays in it."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            path.rmdir()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise NoCgroup(f"{path} is still in use: {error.strerror}") from None
            time.sleep(0.05)
