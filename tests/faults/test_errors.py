"""One call to the disk fails, each in turn, under a real server that pushes, pulls and deletes.

The answer is 503 or 507 with its code, and a client that asks again gets to its end with the same session.
"""

from __future__ import annotations

import http.client
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import Answer, Server, digest_of, image, path_of, seeded_bytes, with_query

from trioreg.storage.filesystem.faulty import CALLS

from .tally import TALLY, size

KIB = 1024
# More calls than the scenario makes; each test finds the end by itself.
MOST_CALLS = 1000
CODES = {"EIO": (503, "UNAVAILABLE"), "ENOSPC": (507, "UNAVAILABLE")}


class FaultyServer(Server):
    """A server that consults `faults` before each call to its disk."""

    def __init__(self, home: Path, front: str) -> None:
        self.faults = home / "faults"
        settings = {"debug.disk_faults": str(self.faults), "http.front": front, "log.access": "false"}
        super().__init__(home, settings=settings)

    def arm(self, line: str) -> None:
        new = self.faults.with_suffix(".new")
        new.write_text(line)
        new.rename(self.faults)

    @property
    def struck(self) -> int:
        return self.stderr.count("a fault of the disk, as asked for")


@pytest.fixture(scope="module", params=["direct", "quart"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp(f"errors-{request.param}"), request.param) as running:
        yield running
    assert "unforeseen" not in running.stderr


class Scenario:
    """A push in two chunks, a manifest with a subject and a tag, pulls, a mount and deletes."""

    def __init__(self, server: FaultyServer, name: str, error: str) -> None:
        self._server = server
        self._expected = CODES[error]
        self._failures = 0
        self.name = name
        self.content = seeded_bytes(name, 100 * KIB)
        self.config = seeded_bytes(f"{name}-config", 10)

    def run(self) -> None:
        blob = self._push(self.content)
        self._push(self.config)
        subject = image(self.config, [])
        manifest = image(self.config, [self.content], subject=subject.descriptor)
        for each, tag in ((subject, "subject"), (manifest, "latest")):
            headers = {"Content-Type": each.media_type}
            self._ask("PUT", f"/v2/{self.name}/manifests/{tag}", 201, each.body, headers)
        mount = f"/v2/{self.name}/mounted/blobs/uploads/?mount={blob}&from={self.name}"
        self._ask("POST", mount, 201)
        for path, body in (
            (f"/v2/{self.name}/blobs/{blob}", self.content),
            (f"/v2/{self.name}/mounted/blobs/{blob}", self.content),
            (f"/v2/{self.name}/manifests/latest", manifest.body),
            (f"/v2/{self.name}/manifests/{manifest.digest}", manifest.body),
        ):
            assert self._ask("GET", path, 200).body == body
        assert self._ask("GET", f"/v2/{self.name}/tags/list", 200).json()["tags"] == ["latest", "subject"]
        referrers = self._ask("GET", f"/v2/{self.name}/referrers/{subject.digest}", 200)
        assert [each["digest"] for each in referrers.json()["manifests"]] == [manifest.digest]
        for path in (
            f"/v2/{self.name}/manifests/subject",
            f"/v2/{self.name}/manifests/{manifest.digest}",
            f"/v2/{self.name}/mounted/blobs/{blob}",
        ):
            self._ask("DELETE", path, 202, gone=404)
            assert self._ask("GET", path, 404).status == 404
        assert self._ask("GET", f"/v2/{self.name}/blobs/{blob}", 200).body == self.content
        assert self._failures <= 1

    def _push(self, content: bytes) -> str:
        location = ""
        digest = digest_of(content)
        half = len(content) // 2
        while True:
            if not location:
                opened = self._ask("POST", f"/v2/{self.name}/blobs/uploads/", 202)
                location = path_of(opened.headers["Location"])
            status = self._ask("GET", location, 204, gone=404)
            if status.status == 404:
                location = ""
                continue
            offset = int(status.headers["Range"].removeprefix("0-"))
            offset = offset + 1 if offset else 0
            if offset < len(content):
                end = half if offset < half else len(content)
                place = {"Content-Range": f"{offset}-{end - 1}"}
                self._once("PATCH", location, content[offset:end], place)
                continue
            answer = self._once("PUT", with_query(location, f"digest={digest}"), b"", {})
            if answer is not None and answer.status == 201:
                return digest
            if answer is not None:
                assert answer.status == 404, answer  # published, though the link was not made: push anew
                location = ""

    def _once(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer | None:
        """The answer, or None for the one failure there may be."""
        try:
            answer = self._server.request(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self._failures += 1  # a blob that cannot be read any more ends the connection
            return None
        if answer.status >= 500:
            assert (answer.status, answer.error_codes) == (self._expected[0], [self._expected[1]]), answer
            self._failures += 1
            return None
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        gone: int = 0,
    ) -> Answer:
        """Ask, and once more if that failed; then `gone` is as good, for it was perhaps done already."""
        answer = self._once(method, path, body, headers or {})
        while answer is None:
            answer = self._once(method, path, body, headers or {})
        assert answer.status in (status, gone), (method, path, answer, answer.body)
        return answer


@pytest.mark.parametrize("error", CODES)
def test_each_call_of_the_disk_fails_once(server: FaultyServer, error: str) -> None:
    """Call by call, until the scenario ends before the fault: nothing is lost and nobody is stuck."""
    for number in range(1, MOST_CALLS, size(50, 1)):
        before = server.struck
        with TALLY.moment(f"{error} under a real server"):
            server.arm(f"any {number} {error}")
            Scenario(server, f"errors/{error.lower()}{number}", error).run()
        if server.struck == before:
            assert number > 60, "so few calls: the seam is bypassed"
            return
    raise AssertionError("the scenario does not end")


# A file is cut only after another failure, which test_steps.py has.
@pytest.mark.parametrize("call", [call for call in CALLS if call != "truncate"])
def test_each_kind_of_call_fails(server: FaultyServer, call: str) -> None:
    """Read, write, sync, rename and the others: the first of each kind fails with EIO."""
    before = server.struck
    with TALLY.moment("EIO under a real server"):
        server.arm(f"{call} 1 EIO")
        Scenario(server, f"errors/{call.replace('_', '-')}", "EIO").run()
    assert server.struck - before == 1


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The kernel itself refuses a write of the engine's; once it allows it, the same session goes on."""
    with Server(tmp_path) as server, TALLY.moment("write refused by the kernel"):
        content = seeded_bytes("grow", 3 * 2**20)
        limit(server, 2**20)
        location = path_of(server.request("POST", "/v2/grow/blobs/uploads/").headers["Location"])
        answer = server.request("PATCH", location, content)
        assert (answer.status, answer.error_codes) == (507, ["UNAVAILABLE"])
        limit(server, resource.RLIM_INFINITY)
        offset = int(server.request("GET", location).headers["Range"].removeprefix("0-"))
        offset = offset + 1 if offset else 0
        assert offset <= 2**20
        finish = with_query(location, f"digest={digest_of(content)}")
        place = {"Content-Range": f"{offset}-{len(content) - 1}"}
        assert server.request("PUT", finish, content[offset:], place).status == 201
        assert server.request("GET", f"/v2/grow/blobs/{digest_of(content)}").body == content


def limit(server: Server, size: int) -> None:
    """What a file of the server's may grow to, in bytes."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
