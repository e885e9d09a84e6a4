"""Requests per second of one GET: by `wrk` when it is installed, else by our own loop.

wrk 4 waits for a body after HEAD and never ends one, so HEAD is always asked by our own loop, which
costs more processor time; the tables say which was used.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator

from perf.lean import Line, Steps, drive, request
from perf.wire import Refused

GRACE = 30.0  # seconds after its time is up


def tool_for(method: str) -> str:
    """`wrk` or `own loop`."""
    return "wrk" if method == "GET" and shutil.which("wrk") else "own loop"


def ask_again_and_again(
    method: str, port: int, path: str, accept: str, *, connections: int, seconds: float
) -> tuple[int, float]:
    """Requests answered 200, and the seconds it took. Refused at any other answer."""
    if tool_for(method) == "wrk":
        return by_wrk(f"http://127.0.0.1:{port}{path}", accept, connections, seconds)
    return by_own_loop(
        request(method, path, [f"Accept: {accept}"]), port, connections=connections, seconds=seconds
    )


def by_own_loop(asked: bytes, port: int, *, connections: int, seconds: float) -> tuple[int, float]:
    """One request in flight on each connection."""
    begin = time.perf_counter()
    end = begin + seconds
    counts = [0] * connections

    def client(number: int) -> Steps[None]:
        with Line(port) as line:
            while time.perf_counter() < end:
                yield from line.ask(asked, 200)
                counts[number] += 1

    drive((client(number) for number in range(connections)), seconds + GRACE)
    return sum(counts), time.perf_counter() - begin


def by_wrk(url: str, accept: str, connections: int, seconds: float) -> tuple[int, float]:
    """One thread of it; whole seconds, at least one."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s"]
    done = subprocess.run(
        [*command, "-H", f"Accept: {accept}", url],
        capture_output=True,
        text=True,
        timeout=seconds + GRACE,
        check=False,
    )
    if done.returncode:
        raise Refused(f"wrk ended with exit code {done.returncode}: {done.stderr.strip()}")
    return counted(done.stdout)


def counted(output: str) -> tuple[int, float]:
    """Requests and seconds of what wrk printed. Refused when any was not answered well."""
    for trouble in problems(output):
        raise Refused(f"wrk: {trouble}")
    found = re.search(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m),", output, re.MULTILINE)
    if found is None:
        raise Refused(f"wrk said {output[:200]!r}")
    return int(found[1]), float(found[2]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[found[3]]


def problems(output: str) -> Iterator[str]:
    """The lines in which wrk tells of failures."""
    for line in output.splitlines():
        if line.strip().startswith(("Non-2xx", "Socket errors", "unable")):
            yield line.strip()
