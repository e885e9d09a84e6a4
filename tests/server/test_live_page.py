"""The live page in a real browser, and its stream of events over the wire."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from blackbox import Server
from inprocess import FRONTS, KIB, serving
from trio.testing import wait_all_tasks_blocked

from perf.browser import Browser, find_browser
from trioreg.server.inside import live
from trioreg.storage.filesystem import Disk, FilesystemStorage

LOCAL = {"Host": "localhost"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        if os.environ.get("TRIOREG_TEST_REQUIRE_CLIENTS"):
            pytest.fail("needs chromium-headless-shell")
        pytest.skip("needs chromium-headless-shell, or chromium")
    with Browser(program) as running:
        yield running


def begin_upload(server: Server, name: str, size: int, sent: int) -> socket.socket:
    """A PATCH of `size` bytes of which `sent` are on their way; the rest never comes."""
    answer = server.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202
    connection = server.connect()
    lines = [
        f"PATCH {answer.headers['Location']} HTTP/1.1",
        f"Host: {server.address}",
        f"Content-Length: {size}",
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + bytes(sent))
    return connection


def test_the_page_shows_what_the_server_does(browser: Browser, tmp_path: Path) -> None:
    """Uploads as rows with what they wait for, the budget as a meter, two lines that move; keys and dark mode
    work; nothing is loaded from elsewhere and the console has no error.
    """
    settings = {"ui.enabled": "true", "http.shutdown_grace": "0"}
    with Server(tmp_path, settings=settings) as server:
        uploads = [begin_upload(server, f"some/name-{number}", 300_000, 100_000) for number in range(3)]
        browser.prefer("light")
        browser.open(f"{server.url}/ui/live")
        browser.wait_for("document.querySelectorAll('#uploads tr').length === 3")
        rows = browser.evaluate("[...document.querySelectorAll('#uploads tr')].map(row => row.innerText)")
        for number, row in enumerate(rows):
            assert row.split("\t")[0] == f"some/name-{number}"
            assert row.split("\t")[5] == "client"
            assert row.split("\t")[6] == "100 kB"
        assert browser.evaluate("document.querySelector('#budget').getAttribute('aria-valuemax')") == "40"
        assert "of 40 blocks held" in browser.evaluate("document.querySelector('#budget-text').innerText")
        drawn = "document.querySelector('#resident-line polyline').points.length"
        before = browser.evaluate(drawn)
        browser.wait_for(f"{drawn} > {before} + 1")
        assert browser.evaluate("document.querySelector('#resident').innerText").endswith(" MB")
        keys_work(browser)
        dark_mode_works(browser)
        uploads[1].close()
        browser.wait_for("document.querySelectorAll('#uploads tr').length === 2")
        assert {url.partition("/ui/")[0] for url in browser.requests if url.startswith("http")} == {
            server.url
        }
        assert browser.errors == []
        for each in uploads:
            each.close()


def keys_work(browser: Browser) -> None:
    """Arrows go through the rows, `p` pauses and goes on."""
    focused = "document.activeElement.innerText.split('\\t')[0]"
    browser.press("ArrowDown")
    assert browser.evaluate(focused) == "some/name-0"
    browser.press("ArrowDown")
    browser.press("End")
    assert browser.evaluate(focused) == "some/name-2"
    browser.press("ArrowUp")
    assert browser.evaluate(focused) == "some/name-1"
    browser.press("p")
    assert browser.evaluate("document.querySelector('#state').innerText") == "paused"
    assert browser.evaluate("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    browser.press("p")
    browser.wait_for("document.querySelector('#state').innerText.includes('connections')")


def dark_mode_works(browser: Browser) -> None:
    """Ground and text follow what the reader prefers, and stay far apart."""
    light = brightness(browser)
    browser.prefer("dark")
    dark = brightness(browser)
    assert light["ground"] > 230 > 60 > light["text"]
    assert dark["ground"] < 60 < 200 < dark["text"]


def brightness(browser: Browser) -> dict[str, float]:
    """Of the ground and the text, 0 to 255."""
    found: dict[str, float] = browser.evaluate(
        "(() => { const style = getComputedStyle(document.body);"
        " const mean = (text) => text.match(/[0-9]+/g).slice(0, 3).reduce((sum, each) => sum + +each, 0) / 3;"
        " return { ground: mean(style.backgroundColor), text: mean(style.color) } })()"
    )
    return found


async def first_event(stream: trio.SocketStream) -> dict[str, Any]:
    """Read a head and the first event behind it."""
    data = b""
    while b"\n\n" not in data.partition(b"data: ")[2]:
        more = await stream.receive_some(64 * KIB)
        assert more, data
        data += more
    assert b"text/event-stream" in data
    text = data.partition(b"data: ")[2].partition(b"\n\n")[0]
    event: dict[str, Any] = json.loads(text)
    return event


GET = b"GET /ui/events HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("front", FRONTS)
async def test_listeners_are_bounded(front: str, tmp_path: Path) -> None:
    """So many may listen; the next is told 429, and may when one has gone."""
    with trio.fail_after(30):
        async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front) as server:
            listeners = []
            for _ in range(live.LISTENERS):
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(GET)
                listeners.append(stream)
                event = await first_event(stream)
                assert event["budget"]["total"] == 16
            assert (await server.request("GET", "/ui/events", headers=LOCAL)).status == 429
            for stream in listeners:
                await stream.aclose()
            status = 429
            while status == 429:
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(GET)
                status = int((await stream.receive_some(64 * KIB)).split()[1])
                await stream.aclose()
                await wait_all_tasks_blocked(0.01)
            assert status == 200


@pytest.mark.parametrize("front", FRONTS)
async def test_who_reads_nothing_loses_its_place(
    front: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream has an end, read or not; so any number that never read do not keep out the next."""
    monkeypatch.setattr(live, "STREAM_SECONDS", 0.0)
    with trio.fail_after(30):
        async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front) as server:
            silent = []
            for _ in range(2 * live.LISTENERS):
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(GET)
                silent.append(stream)
            status = 429
            while status == 429:
                stream = await trio.open_tcp_stream("127.0.0.1", server.port)
                await stream.send_all(GET)
                status = int((await stream.receive_some(64 * KIB)).split()[1])
                await stream.aclose()
            assert status == 200
            for stream in silent:
                await stream.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_a_listener_does_not_keep_the_server(front: str, tmp_path: Path) -> None:
    """When the server stops the stream ends, long before the grace period does."""
    with trio.fail_after(10):
        async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front, grace=60) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(GET)
            await first_event(stream)
            server.signals.send_nowait(15)
            while await stream.receive_some(64 * KIB):
                pass
            await stream.aclose()


@pytest.mark.parametrize("front", FRONTS)
async def test_the_page_is_for_insiders(front: str, tmp_path: Path) -> None:
    """Its files and its events are refused to who comes from elsewhere; a method they do not know is 405."""
    async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front) as server:
        for path in (*live.FILES, "/ui/events"):
            assert (await server.request("GET", path)).status == 403
            assert (await server.request("POST", path, headers=LOCAL)).status == 405
        page = await server.request("GET", "/ui/live", headers=LOCAL)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert b"http://" not in page.body
        assert b"https://" not in page.body
