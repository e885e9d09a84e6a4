"""Who takes part in a speed run: ours in its variants, and the peers that are found or named.

Owns what each is started with. The rule: none keeps an access log, each has its deletes enabled and
writes to the folder it is given; everything else is its default, and what is not is printed.
"""

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

QUIET = {"log.access": "false", "log.level": "warning"}
DEBIAN_PEER = "docker-registry"
CONFIGURATION = """\
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /nowhere}
  delete: {enabled: true}
http: {addr: 127.0.0.1:0}
"""


@dataclass(frozen=True)
class Contender:
    """`command` is a peer's, with `{port}` and `{storage}`, or "" for ours with `settings`."""

    name: str
    command: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    pushes_only: bool = False

    @property
    def ours(self) -> bool:
        return not self.command

    @property
    def environment(self) -> dict[str, str]:
        """The settings as the variables trioreg reads them from."""
        return {variable(name): value for name, value in self.settings.items()}

    def line(self) -> str:
        """How it was started, for whoever reads the figures; of absolute paths the last part."""
        if not self.ours:
            words = [Path(word).name if word.startswith("/") else word for word in self.command.split()]
            return f"{self.name}: {' '.join(words)}"
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{self.name}: {settings}{' (pushes only)' if self.pushes_only else ''}"


def variable(setting: str) -> str:
    """`memory.budget` as TRIOREG_MEMORY_BUDGET."""
    return "TRIOREG_" + setting.upper().replace(".", "_")


def ours(
    settings: Sequence[tuple[str, str]], variants: Sequence[tuple[str, dict[str, str]]]
) -> list[Contender]:
    """The durable one, which every target is about; the one that does not sync; the variants asked for."""
    common = {**QUIET, **dict(settings)}
    return [
        Contender("trioreg", settings={**common, "storage.durability": "full"}),
        Contender("trioreg, no sync", settings={**common, "storage.durability": "none"}, pushes_only=True),
        *(Contender(f"trioreg, {name}", settings={**common, **own}) for name, own in variants),
    ]


def variant(text: str) -> tuple[str, dict[str, str]]:
    """`NAME:SETTING=VALUE,SETTING=VALUE`. ValueError for anything else."""
    name, _, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not name or not all(setting and equals for setting, equals, _ in pairs):
        raise ValueError(f"{text!r} is not NAME:SETTING=VALUE,…")
    return name, {setting: value for setting, _, value in pairs}


def peer(text: str) -> Contender:
    """`NAME=COMMAND`. ValueError for anything else, or without the two places."""
    name, _, command = text.partition("=")
    if not name or "{port}" not in command or "{storage}" not in command:
        raise ValueError(f"{text!r} is not NAME=COMMAND with {{port}} and {{storage}} in it")
    return Contender(name, command)


def installed_peers(folder: Path) -> list[Contender]:
    """Debian's docker-registry when it is on PATH, with a configuration written into `folder`."""
    program = shutil.which(DEBIAN_PEER)
    if program is None:
        return []
    file = folder / "docker-registry.yml"
    file.write_text(CONFIGURATION)
    overrides = "REGISTRY_HTTP_ADDR=127.0.0.1:{port} REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY={storage}"
    command = f"env {overrides} {shlex.quote(program)} serve {shlex.quote(str(file))}"
    return [Contender(f"{DEBIAN_PEER} {version(program)}".strip(), command)]


def version(program: str) -> str:
    """The last word of what it prints for --version, "" when it does not."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.split() or [""])[-1]


def twice(contenders: Sequence[Contender]) -> list[str]:
    """Names that are not theirs alone."""
    names = [contender.name for contender in contenders]
    return sorted({name for name in names if names.count(name) > 1})
