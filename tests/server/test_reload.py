"""Settings that are read again while the server runs: by signal, and when the file has changed."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blackbox import Server

from trioreg.config import Config, ConfigError, Source
from trioreg.server.reload import Live

from .test_life import SOON
from .test_workers import until_both_answered, workers_of

UPLOADS = "/v2/some/name/blobs/uploads/"


class File:
    """A settings file, and what a server with it is told."""

    def __init__(self, path: Path, text: str = "") -> None:
        self.path = path
        self.write(text)

    def write(self, text: str) -> None:
        """Renamed into place, as a careful editor does."""
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text)
        temporary.rename(self.path)

    @property
    def options(self) -> list[str]:
        return ["--config", str(self.path)]


def until(server: Server, condition: Callable[[], bool]) -> None:
    """Ask again until something that needs no more than our patience has happened."""
    limit = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < limit, server.stderr[-3000:]
        os.sched_yield()


def advice(server: Server) -> str | None:
    """A live setting that every answer to a POST shows."""
    return server.request("POST", UPLOADS).headers["OCI-Chunk-Min-Length"]


@pytest.mark.parametrize("front", ["direct", "quart"])
def test_sighup_puts_live_settings_in_force(tmp_path: Path, front: str) -> None:
    """The next request has the new value, the log says what changed, and connections stay."""
    file = File(tmp_path / "t.toml")
    with Server(tmp_path, settings={"http.front": front}, options=file.options) as server:
        assert advice(server) is None
        with contextlib.closing(http.client.HTTPConnection(server.host, server.port)) as kept:
            kept.request("GET", "/v2/")
            assert kept.getresponse().read() == b"{}"
            used = kept.sock
            file.write('[upload]\nchunk_min_length = "1MiB"\n[log]\nformat = "json"\n')
            os.kill(server.pid, signal.SIGHUP)
            until(server, lambda: advice(server) == "1048576")
            kept.request("GET", "/v2/")
            assert kept.getresponse().read() == b"{}"
            assert kept.sock is used
        until(server, lambda: '"setting": "upload.chunk_min_length", "value": "1MiB"' in server.stderr)


def test_a_change_of_the_file_is_enough(tmp_path: Path) -> None:
    """Nobody needs to send a signal."""
    file = File(tmp_path / "t.toml")
    with Server(tmp_path, options=file.options) as server:
        file.write("[upload]\nchunk_min_length = 4096\n")
        until(server, lambda: advice(server) == "4096")
        assert "the settings file has changed" in server.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[upload]\nchunk_min_length = 1\n[htpp]\nport = 1\n", "no such setting"),
        ("[upload]\nchunk_min_length = 1\n[memory]\nbudget = 1\n", "is less than"),
        ("[upload\n", "file "),
    ],
)
def test_a_bad_file_changes_nothing(tmp_path: Path, text: str, says: str) -> None:
    """One error in the log; what is good in such a file does not count either."""
    file = File(tmp_path / "t.toml", "[upload]\nchunk_min_length = 7\n")
    with Server(tmp_path, options=file.options) as server:
        file.write(text)
        os.kill(server.pid, signal.SIGHUP)
        until(server, lambda: "settings not reloaded" in server.stderr)
        assert advice(server) == "7"
        [line] = [line for line in server.stderr.splitlines() if "settings not reloaded" in line]
        assert says in line


def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    """One line for each such setting, with both values; the live ones of the same file do change."""
    file = File(tmp_path / "t.toml")
    with Server(tmp_path, options=file.options) as server:
        file.write('[http]\nbacklog = 5\n[memory]\nblock = "512KiB"\n[upload]\nchunk_min_length = 9\n')
        os.kill(server.pid, signal.SIGHUP)
        until(server, lambda: advice(server) == "9")
        until(server, lambda: server.stderr.count("setting needs a restart") == 2)
        assert "setting=http.backlog in_force=1024 wanted=5" in server.stderr


def test_every_worker_reloads(tmp_path: Path) -> None:
    """SIGHUP to the one that watches reaches them all, and a successor starts with the new settings."""
    file = File(tmp_path / "t.toml")
    settings = {"http.workers": "2", "http.idle_timeout": "5"}
    with Server(tmp_path, settings=settings, options=file.options) as server:
        until_both_answered(server)
        file.write("[upload]\nchunk_min_length = 77\n")
        os.kill(server.pid, signal.SIGHUP)
        until(server, lambda: server.stderr.count("setting=upload.chunk_min_length") == 2)
        assert {advice(server) for _ in range(20)} == {"77"}
        for victim in workers_of(server):
            os.kill(victim, signal.SIGKILL)
        assert {advice(server) for _ in range(20)} == {"77"}


# The rule itself, without a server.


def live(tmp_path: Path, text: str, share: Callable[[Config], Config] | None = None) -> tuple[Live, File]:
    file = File(tmp_path / "t.toml", text)
    source = Source({}, {}, file.path)
    return Live(source.load(), source, share=share), file


def test_whoever_registered_gets_its_share(tmp_path: Path) -> None:
    """With workers each is told its part; a reload that changes nothing tells nobody."""
    from trioreg.server.workers import share_of

    told: list[Config] = []
    subject, file = live(tmp_path, '[http]\nworkers = 2\n[memory]\nbudget = "96MiB"\n', share_of)
    subject.on_change(told.append)
    assert subject.reload()
    assert told == []
    file.write('[http]\nworkers = 2\n[memory]\nbudget = "96MiB"\n[log]\nlevel = "error"\n')
    assert subject.reload()
    assert [(config.log_level, config.memory_budget) for config in told] == [("error", 48 << 20)]
    assert (subject.whole.log_level, subject.whole.memory_budget) == ("error", 96 << 20)


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """A bug in one is in the log, and the rest of the settings is in force."""
    told: list[Config] = []
    subject, file = live(tmp_path, "")
    subject.on_change(lambda config: [][0])
    subject.on_change(told.append)
    file.write("[upload]\nlease_wait = 1\n")
    assert subject.reload()
    assert [config.upload_lease_wait for config in told] == [1.0]


def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    """As one that cannot be read: the defaults do not come back by accident."""
    subject, file = live(tmp_path, "[upload]\nlease_wait = 1\n")
    file.path.unlink()
    assert not subject.reload()
    assert subject.config.upload_lease_wait == 1.0
    with pytest.raises(ConfigError):
        Source({}, {}, file.path).load()
