"""A headless Chromium, driven over its DevTools protocol through a pair of pipes.

https://chromedevtools.github.io/devtools-protocol/: with ``--remote-debugging-pipe`` messages are JSON, ended
by a zero byte, on the descriptors 3 and 4. Standard library only. What the page says on its console as an
error, and every address that it asked for, is kept.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
]

ANSWER_SECONDS = 30.0


def find_browser() -> str | None:
    """The program, if there is one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page; a context manager."""

    def __init__(self, program: str, *, width: int = 1280, height: int = 900):
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._profile = tempfile.TemporaryDirectory(prefix="trioreg-browser-", ignore_cleanup_errors=True)
        self._number = 0
        self._unread = b""
        self._session: str | None = None
        # Above 9, so that the child can put them at 3 and 4 whatever is there now.
        commands, self._commands = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in _pipe())
        self._answers, answers = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in _pipe())

        def place() -> None:
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,  # all of ours are closed by exec anyway, and 3 and 4 have to stay
            preexec_fn=place,
        )
        os.close(commands)
        os.close(answers)

    def __enter__(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited. RuntimeError for an exception."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", expression))
        return found["result"].get("value")

    def wait_for(self, expression: str, seconds: float = ANSWER_SECONDS) -> Any:
        """Evaluate once a frame until it is true, and give that. TimeoutError."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            # The condition may be asked for before the page is there, or while it is being replaced.
            found = self.evaluate(
                f"new Promise(done => requestAnimationFrame(() => {{ try {{ done({expression}) }}"
                " catch { done(null) } }))"
            )
            if found:
                return found
        raise TimeoutError(f"{expression} did not become true; on the page: {self.evaluate(_TEXT)}")

    def press(self, key: str) -> None:
        """A key, as KeyboardEvent.key names it."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def prefer(self, scheme: str) -> None:
        """The colours that the reader likes: dark or light."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """What is visible, as PNG."""
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer. RuntimeError for a refusal, TimeoutError without one."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], ANSWER_SECONDS)
            if not ready:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] in ("error", "assert"):
                self.errors.append(str(parameters["args"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])


_TEXT = "document.body ? document.body.innerText.slice(0, 2000) : ''"


def _pipe() -> tuple[int, int]:
    return os.pipe()
