"""`python -m perf screenshot`: the live page, taken while a hundred uploads run.

The server, the uploads and the browser are real; the picture is of the moment at which the page shows every
upload and has drawn its lines for a while.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from perf.browser import Browser, find_browser
from perf.plan import MB, Group, Kind, Plan, encode, size
from perf.run import Settings, case_folder
from perf.server import Server

POINTS = 24  # twelve seconds of a line
SECONDS = 120.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--uploads", type=int, default=100, help="at once (default 100)")
    parser.add_argument("--size", type=size, default=128 * MB, help="of an upload (default 128MB)")
    parser.add_argument("--dark", action="store_true", help="for readers who like it dark")
    parser.add_argument("--out", type=Path, default=Path("docs/live.png"), help="default docs/live.png")


def take(options: argparse.Namespace) -> int:
    """Take it; the exit code."""
    program = find_browser()
    if program is None:
        print("perf: needs chromium-headless-shell (Debian), or chromium", file=sys.stderr)
        return 2
    with case_folder(Settings(), options.uploads * options.size) as home:
        with Server(home, settings={"TRIOREG_UI_ENABLED": "true"}) as server:
            group = Group("uploads", Kind.PUSH, clients=options.uploads, size=options.size, chunked=True)
            plan = Plan("127.0.0.1", server.port, [group], SECONDS)
            with Browser(program, width=1280, height=1000) as browser:
                browser.prefer("dark" if options.dark else "light")
                browser.open(f"http://127.0.0.1:{server.port}/ui/live")
                browser.wait_for("document.querySelector('#budget-text').innerText")
                with pushing(plan):
                    browser.wait_for(f"+document.querySelector('#count').innerText >= {options.uploads}")
                    points = "document.querySelector('#received-line polyline').points.length"
                    until = browser.evaluate(points) + POINTS
                    browser.wait_for(f"{points} >= {until}")
                    shown = browser.evaluate("+document.querySelector('#count').innerText")
                    browser.screenshot(options.out)
                if browser.errors:
                    print(f"perf: the page complained: {browser.errors}", file=sys.stderr)
                    return 1
    print(f"{options.out}: {shown} uploads on the page")
    return 0


@contextlib.contextmanager
def pushing(plan: Plan) -> Iterator[None]:
    """Clients at work; ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "perf.client"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(encode(plan))
        process.stdin.close()
        yield
    finally:
        process.kill()
        process.wait()
