"""Where a figure was measured: processor, system, versions, filesystem."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512bw", "sha_ni")  # those that decide how fast a digest is
PACKAGES = ("trioreg", "trio", "quart", "quart-trio", "hypercorn", "msgspec", "httptools")


@dataclass(frozen=True)
class Machine:
    """Everything as text or numbers, ready for JSON."""

    cpu: str
    cores: int
    flags: list[str]
    memory_bytes: int
    kernel: str
    python: str
    packages: dict[str, str]
    filesystem: str
    commit: str

    def lines(self) -> list[str]:
        flags = " ".join(self.flags) or "no vector flags"
        packages = ", ".join(f"{name} {version}" for name, version in self.packages.items())
        return [
            f"{self.cpu}, {self.cores} cores ({flags}), {self.memory_bytes / 1e9:.1f} GB",
            f"Linux {self.kernel}, Python {self.python}, {packages}",
            f"storage on {self.filesystem}, commit {self.commit or 'unknown'}",
        ]


def this_machine(storage: Path) -> Machine:
    """`storage` is where the registry will write."""
    model, flags = processor(Path("/proc/cpuinfo").read_text())
    return Machine(
        cpu=model,
        cores=len(os.sched_getaffinity(0)),
        flags=flags,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        python=platform.python_version(),
        packages=versions(),
        filesystem=filesystem_of(storage.resolve(), Path("/proc/self/mounts").read_text()),
        commit=commit(),
    )


def processor(cpuinfo: str) -> tuple[str, list[str]]:
    """Model and the flags that matter, of the first core."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    have = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name", platform.machine()), [flag for flag in FLAGS if flag in have]


def filesystem_of(path: Path, mounts: str) -> str:
    """Type and device of the mount that holds `path`: `ext4 (/dev/sda1)`."""
    best, found = "", "unknown"
    for line in mounts.splitlines():
        device, mount, kind = line.split()[:3]
        if path.is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, f"{kind} ({device})"
    return found


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the repository this file is in, "" outside of one; a `+` says there are changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
