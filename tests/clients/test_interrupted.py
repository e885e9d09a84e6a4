"""A connection cut in the middle costs only what had not arrived.

True here: a pull goes on with `Range` at the byte where it was cut; a push whose PATCH was cut goes
on at the offset the upload URL tells, however the connection died and even when the server was
killed and started again; the digest of the whole is right, no byte before the offset is sent twice.
"""

import contextlib
import http.client
import socket
import struct
from collections.abc import Callable

import pytest
from blackbox import (
    ANSWER_SECONDS,
    Registry,
    Server,
    digest_of,
    path_of,
    push_blob,
    seeded_bytes,
    with_query,
)

SIZE = 24 * 1024 * 1024  # bytes
# Bytes before the cut. Not 1: an upload of one byte says `Range: 0-0`, as an empty one does.
CUTS = [2, 70_001, SIZE // 2, SIZE - 1]
ATTEMPTS = 10
OCTETS = {"Content-Type": "application/octet-stream"}


def pull_part(server: Registry, path: str, first: int, count: int) -> bytes:
    """`count` bytes from `first`, and then the connection is closed with the rest unread."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers={"Range": f"bytes={first}-"})
        response = connection.getresponse()
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {first}-{SIZE - 1}/{SIZE}"
        return response.read(count)
    finally:
        connection.close()


def test_pull_resumed_by_range(server: Registry) -> None:
    """A blob pulled in five pieces, each but the last one cut short, is the blob."""
    content = seeded_bytes("interrupted pull", SIZE)
    digest = push_blob(server, "interrupted/pull", content)
    path = f"/v2/interrupted/pull/blobs/{digest}"
    received = b""
    for end in (*CUTS, SIZE):
        received += pull_part(server, path, len(received), end - len(received))
        assert len(received) == end
    assert digest_of(received) == digest


def end_politely(connection: socket.socket) -> None:
    """FIN: what was sent arrives."""
    connection.close()


def reset(connection: socket.socket) -> None:
    """RST: what the server had not read may be lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def open_upload(server: Registry, repository: str) -> str:
    """The path of a new upload session."""
    answer = server.request("POST", f"/v2/{repository}/blobs/uploads/")
    assert answer.status == 202
    return path_of(answer.headers["Location"])


def patch_part(
    server: Registry, upload: str, content: bytes, count: int, offset: int | None = None
) -> socket.socket:
    """Announce all of `content` in a PATCH, send `count` bytes; the connection, still open.

    `offset` says where the content belongs; without it, it belongs after what the server has.
    """
    place = "" if offset is None else f"Content-Range: {offset}-{offset + len(content) - 1}\r\n"
    connection = server.connect()
    head = (
        f"PATCH {upload} HTTP/1.1\r\nHost: {server.address}\r\n{place}"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the end
        connection.sendall(head.encode() + content[:count])
    return connection


def patch_part_of_unknown_length(server: Registry, upload: str, content: bytes, count: int) -> socket.socket:
    """The same in chunked coding, cut inside a chunk."""
    connection = server.connect()
    head = (
        f"PATCH {upload} HTTP/1.1\r\nHost: {server.address}\r\n"
        f"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(content):x}\r\n"
    )
    connection.sendall(head.encode() + content[:count])
    return connection


def offset_of(server: Registry, upload: str) -> tuple[int, str]:
    """How many bytes the server has, and where to send the next."""
    answer = server.request("GET", upload)
    assert answer.status == 204
    last = int(answer.headers["Range"].partition("-")[2])
    return (last + 1 if last else 0), path_of(answer.headers["Location"])


def finish(server: Registry, upload: str, content: bytes) -> int:
    """Send what is missing and close the upload; the offset from which it was accepted.

    The server may not yet have seen the end of the cut request when it tells the offset; then it
    refuses the next chunk with 416, and a client asks again.
    """
    for _ in range(ATTEMPTS):
        offset, upload = offset_of(server, upload)
        chunk = {**OCTETS, "Content-Range": f"{offset}-{len(content) - 1}"}
        answer = server.request("PATCH", upload, content[offset:], chunk)
        if answer.status == 202:
            break
        assert answer.status == 416
    else:
        raise AssertionError(f"refused {ATTEMPTS} times")
    assert answer.headers["Range"] == f"0-{len(content) - 1}"
    location = with_query(answer.headers["Location"], f"digest={digest_of(content)}")
    closed = server.request("PUT", location, headers={"Content-Length": "0"})
    assert closed.status == 201
    return offset


def assert_published(server: Registry, repository: str, content: bytes) -> None:
    answer = server.request("GET", f"/v2/{repository}/blobs/{digest_of(content)}")
    assert answer.status == 200
    assert digest_of(answer.body) == digest_of(content)


Sender = Callable[[Registry, str, bytes, int], socket.socket]


@pytest.mark.parametrize("send", [patch_part, patch_part_of_unknown_length])
@pytest.mark.parametrize("count", CUTS)
def test_push_resumed_at_the_offset(server: Registry, send: Sender, count: int) -> None:
    """All that was sent before the connection ended is kept, and the push goes on after it."""
    repository = f"interrupted/{send.__name__}"
    content = seeded_bytes(f"{send.__name__} {count}", SIZE)
    upload = open_upload(server, repository)
    end_politely(send(server, upload, content, count))
    assert finish(server, upload, content) == count
    assert_published(server, repository, content)


def test_push_resumed_after_a_reset(server: Registry) -> None:
    """A connection that was reset may lose what was on the way, never more."""
    content = seeded_bytes("reset", SIZE)
    upload = open_upload(server, "interrupted/reset")
    reset(patch_part(server, upload, content, SIZE // 2))
    assert finish(server, upload, content) <= SIZE // 2
    assert_published(server, "interrupted/reset", content)


def test_push_cut_again_and_again(server: Registry) -> None:
    """Each attempt begins where the server says; one that comes too early does no harm."""
    content = seeded_bytes("again", SIZE)
    upload = open_upload(server, "interrupted/again")
    for _ in range(5):
        offset, upload = offset_of(server, upload)
        reset(patch_part(server, upload, content[offset:], SIZE // 8, offset))
    finish(server, upload, content)
    assert_published(server, "interrupted/again", content)


def test_nothing_is_visible_before_the_end(server: Registry) -> None:
    """A blob whose bytes have all arrived is unknown until its upload is closed."""
    content = seeded_bytes("invisible", 1_000_000)
    upload = open_upload(server, "interrupted/invisible")
    answer = server.request("PATCH", upload, content, OCTETS)
    assert answer.status == 202
    path = f"/v2/interrupted/invisible/blobs/{digest_of(content)}"
    assert server.request("HEAD", path).status == 404


@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["SIGTERM", "kill -9"])
def test_push_resumed_after_a_restart(fresh_server: Server, end: Callable[[Server], None]) -> None:
    """A PATCH that was answered is kept; of one that the end cut, as much as was saved."""
    content = seeded_bytes("restart", SIZE)
    upload = open_upload(fresh_server, "interrupted/restart")
    answer = fresh_server.request("PATCH", upload, content[:1_000_000], OCTETS)
    assert answer.status == 202
    upload = path_of(answer.headers["Location"])
    with patch_part(fresh_server, upload, content[1_000_000:], SIZE // 2) as connection:
        if end is Server.stop:
            end_politely(connection)  # a transfer that runs is given its grace period
        end(fresh_server)
    fresh_server.start()
    offset = finish(fresh_server, upload, content)
    assert 1_000_000 <= offset <= 1_000_000 + SIZE // 2
    assert_published(fresh_server, "interrupted/restart", content)
