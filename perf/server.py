"""Starts a fresh registry for one case and stops it, whatever happened.

Ours by default (`python -m trioreg serve`, on a free port it prints), a peer by its command. The
rule: a server that was started is ended by its pid, and how it ended is part of the result.
"""

import contextlib
import http.client
import os
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 45.0  # our default shutdown grace is 30
GREETING = "trioreg listening on http://127.0.0.1:"
OURS = "-m trioreg serve --storage {storage} --bind 127.0.0.1:{port}"


class ServerFailed(Exception):
    """It did not start, ended by itself or did not stop; the message quotes its last words."""


class Server:
    """A running registry: `pid`, `port`. A context manager; `settings` are environment names.

    `python` starts ours; `before` stands in front of any command and must end by becoming it.
    """

    def __init__(
        self,
        home: Path,
        command: str = "",
        settings: Mapping[str, str] = {},
        *,
        port: int = 0,
        python: Sequence[str] = (sys.executable,),
        before: Sequence[str] = (),
    ) -> None:
        self.ours = not command
        self.port = port if port or self.ours else free_port()
        storage = home / "storage"
        storage.mkdir(exist_ok=True)
        words = [word.format(storage=storage, port=self.port) for word in shlex.split(command or OURS)]
        self.command = [*before, *(python if self.ours else ()), *words]
        self._killed = False
        self._settings = dict(settings)
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def alive(self) -> bool:
        return self._running().poll() is None

    def __enter__(self) -> "Server":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.ours else log,
                stderr=log,
                env={**os.environ, **self._settings},
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """SIGTERM, and SIGKILL when that was not enough. ServerFailed when it ended badly."""
        process = self._running()
        if self._killed:
            return
        ended_before = process.poll() is not None
        try:
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"still running {STOP_SECONDS:.0f} s after SIGTERM") from None
        finally:
            self._kill()
        if error is None and (ended_before or (self.ours and code != 0)):
            how = "ended by itself with" if ended_before else "after SIGTERM:"
            raise ServerFailed(f"{how} exit code {code}; {self.last_words()}")

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def _kill(self) -> None:
        """The whole group of processes we started: a peer's command may be a shell."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def kill(self) -> None:
        """SIGKILL, on purpose: nothing is said about how it ended."""
        self._killed = True
        self._kill()

    def last_words(self) -> str:
        """The end of what it wrote to its log."""
        return f"its log ends: {self._log.read_text(errors='replace')[-1500:].strip() or '(empty)'}"

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        if self.ours:
            self.port = self._announced_port()
        while not answers(self.port):
            if self._running().poll() is not None:
                raise ServerFailed(f"did not start; {self.last_words()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"no answer after {START_SECONDS:.0f} s; {self.last_words()}")
            time.sleep(0.05)

    def _announced_port(self) -> int:
        stdout = self._running().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], START_SECONDS)
        line = stdout.readline().decode(errors="replace").strip() if ready else ""
        if not line.startswith(GREETING):
            raise ServerFailed(f"did not start, it said {line!r}; {self.last_words()}")
        return int(line.removeprefix(GREETING))


def answers(port: int) -> bool:
    """Whether /v2/ gets any HTTP answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def free_port() -> int:
    """Free now; a peer that is told to take it may still lose a race for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raise_descriptor_limit() -> int:
    """As far as allowed, for this process and those it starts; the limit that now holds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
