"""The server of a run: where it lives, what its disk is like, how it dies and comes back.

Owns the storage folder and everything mounted there. The rule: whatever is started, mounted or made here is
ended when the context ends, in the opposite order.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from perf.contenders import variable
from perf.harness.cgroup import Cgroup
from perf.harness.scenario import Bytes, Disk, Scenario
from perf.plan import MIB
from perf.run import CaseFailed
from perf.sampling import descendants
from perf.server import Server
from trioreg.config import load

NOTHING: Mapping[str, str] = {}
FILL_TRIES = 20
PROBE = 16 * MIB  # written to find out how fast a disk is


@dataclass(frozen=True)
class Peer:
    """A registry by its command, with `{port}` and `{storage}`; the empty command is ours."""

    name: str = "trioreg"
    command: str = ""


OURS = Peer()


class Host:
    """A server that can be killed and started again on the same port and storage."""

    def __init__(
        self,
        home: Path,
        peer: Peer,
        settings: dict[str, str],
        *,
        cgroup: Cgroup | None = None,
        memray: Path | None = None,
        environment: Mapping[str, str] = NOTHING,
    ) -> None:
        self.home = home
        self.settings = settings
        self._peer = peer
        self._environment = dict(environment)
        self._before = cgroup.command() if cgroup is not None else []
        self._python = memray_python(memray) if memray is not None else [sys.executable]
        self._ballast = home / "storage" / "ballast"
        self.server = self._new(0)

    def _new(self, port: int) -> Server:
        environment = {variable(name): value for name, value in self.settings.items()} | self._environment
        return Server(
            self.home,
            self._peer.command,
            environment,
            port=port,
            python=self._python,
            before=self._before,
        )

    def __enter__(self) -> "Host":
        self.server.__enter__()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.free_disk()
        self.server.__exit__(kind, error, traceback)

    def kill(self) -> None:
        self.server.kill()

    def restart(self) -> None:
        """ServerFailed when it does not come back."""
        self.server = self._new(self.server.port)
        self.server.__enter__()

    def kill_worker(self) -> None:
        """SIGKILL to one child. CaseFailed when there is none: then it has no workers."""
        children = descendants(self.server.pid)[1:]
        if not children:
            raise CaseFailed("kill_worker needs a server with http.workers above 1")
        os.kill(children[0], 9)

    def fill_disk(self, leave: int) -> None:
        """Take all of the storage's filesystem but `leave` bytes, while the server takes some too.

        CaseFailed when the server is quicker again and again.
        """
        with self._ballast.open("wb") as file:
            for lost in range(FILL_TRIES):
                status = os.statvfs(self._ballast.parent)
                size = status.f_bavail * status.f_bsize - leave - lost * MIB
                try:
                    os.posix_fallocate(file.fileno(), 0, max(size, 1))
                    return
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        raise CaseFailed("the disk could not be filled")

    def free_disk(self) -> None:
        self._ballast.unlink(missing_ok=True)


def memray_python(file: Path) -> list[str]:
    """Python under memray, which writes every allocation into `file`. CaseFailed where it is absent."""
    if find_spec("memray") is None:
        raise CaseFailed("--memray needs memray: pip install memray")
    return [sys.executable, "-m", "memray", "run", "--quiet", "--force", "--output", str(file)]


@contextlib.contextmanager
def disk_of(home: Path, disk: Disk | None) -> Iterator[None]:
    """A filesystem of the scenario's size as the storage folder. CaseFailed where that is not possible."""
    storage = home / "storage"
    storage.mkdir(exist_ok=True)
    if disk is None or disk.size is None:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={disk.size}", "trioreg-perf", str(storage)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaseFailed(f"a disk of its own needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(storage)], check=True)


def settings_of(scenario: Scenario, storage: Path) -> dict[str, str]:
    """The scenario's settings, with the delay that makes the disk as slow as it wants."""
    settings = dict(scenario.server)
    disk = scenario.disk
    if disk is not None and disk.latency is not None:
        settings["debug.write_delay"] = str(disk.latency)
    if disk is not None and disk.factor is not None:
        settings["debug.write_delay"] = f"{(disk.factor - 1) * seconds_per_mib(storage):.6f}"
    return settings


def seconds_per_mib(folder: Path) -> float:
    """What this disk takes for a MiB of a durable write, measured now."""
    file = folder / "probe"
    begin = time.monotonic()
    with file.open("wb", buffering=0) as probe:
        for _ in range(PROBE // MIB):
            probe.write(bytes(MIB))
        os.fdatasync(probe.fileno())
    took = time.monotonic() - begin
    file.unlink()
    return took / (PROBE / MIB)


BASE = 34_400_000  # bytes of an idle server, docs/memory.md
PER_CONNECTION = 63_000  # bytes at most, docs/memory.md


def predicted(settings: dict[str, str], connections: int) -> dict[str, int]:
    """The terms of docs/memory.md for these settings."""
    config = load(settings, {}, None)
    terms = {
        "base": BASE * config.http_workers,
        "budget": config.memory_budget,
        "front": config.memory_front,
        "cache": config.memory_cache,
        "per_connection": PER_CONNECTION,
        "connections": connections,
    }
    total = terms["base"] + config.memory_budget + config.memory_front + config.memory_cache
    return {**terms, "total": total + PER_CONNECTION * connections}


def bytes_needed(scenario: Scenario) -> int:
    """What the run may write: a rough upper bound from sizes and counts, for the check of the disk."""
    total = 0
    for group in scenario.group:
        if group.sizes is not None and not group.seconds:
            typical = group.sizes.fixed or group.sizes.median or group.sizes.largest or 0
            recorded = max(group.sizes.recorded or [Bytes(0)])
            total += group.clients * group.each * max(int(typical), int(recorded))
    return total


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def words_of(command: Sequence[str]) -> list[str]:
    """A command for whoever reads the result: of absolute paths, also behind a `=`, the last part."""
    parts = [word.rpartition("=") for word in command]
    return [
        name + equals + (Path(value).name if value[:1] == "/" else value) for name, equals, value in parts
    ]
