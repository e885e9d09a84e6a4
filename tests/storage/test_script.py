"""Scripts of system calls: threads without Python do what Python does, call by call."""

from __future__ import annotations

import errno
import os
import resource
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from trioreg.storage.filesystem import Disk
from trioreg.storage.filesystem.changes import Changes, finish
from trioreg.storage.filesystem.script import (
    LINK,
    MAKE_DIRECTORY,
    REMOVE_DIRECTORY,
    RENAME,
    SET_MODE,
    SYNC_DIRECTORY,
    SYNC_FILE,
    TOUCH,
    UNLINK,
    WRITE_AT,
    WRITE_FILE,
    Call,
    Put,
    Script,
)
from trioreg.storage.filesystem.threads import Scripts

native = pytest.importorskip("trioreg.storage.filesystem._scripts", reason="the extension is not built")


class Seen(Disk):
    """As `Disk`, but no longer the plain one: its calls are made in Python."""


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below, with mode and content."""
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    }


def contents(root: Path) -> dict[str, bytes]:
    """The files below, by their last name."""
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def moved(calls: Sequence[Call], root: Path) -> list[Call]:
    """The calls, with relative names below `root`."""

    def below(what: Any) -> Any:
        return f"{root}/{what}" if isinstance(what, str) else what

    return [(kind, below(subject), below(other)) for kind, subject, other in calls]


def row_of(calls: Sequence[Call], at: int) -> int:
    """Where the row of syncs begins that a call is in: of these Python says no more."""
    while (
        at > 0
        and calls[at][0] in (SYNC_FILE, SYNC_DIRECTORY)
        and calls[at - 1][0] in (SYNC_FILE, SYNC_DIRECTORY)
    ):
        at -= 1
    return at


async def outcome(disk: Disk, calls: Sequence[Call], root: Path) -> tuple[object, ...]:
    """What came of a script, and what is left."""
    os.mkdir(root)
    script = Script(disk)

    def write(fresh: Script) -> None:
        nonlocal script
        script = fresh
        script.calls = moved(calls, root)

    number = 0
    try:
        await Scripts(disk, Changes(disk)).run(write)
    except OSError as error:
        number = error.errno or -1
    return number, row_of(calls, script.failed), script.existed, tree(root)


NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "b/c/d"])


@st.composite
def scripts(draw: st.DrawFn) -> list[Call]:
    """Any calls on few names, so that they meet; a file is synced only where one was written."""
    calls: list[Call] = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(
            st.sampled_from(
                [MAKE_DIRECTORY, WRITE_FILE, SYNC_DIRECTORY, RENAME, LINK, UNLINK, REMOVE_DIRECTORY, TOUCH]
            )
        )
        name = draw(NAMES)
        other: str | bytes | None = None
        if kind in (RENAME, LINK):
            other = draw(NAMES)
        elif kind == WRITE_FILE:
            other = draw(st.binary(max_size=5))
        calls.append((kind, name, other))
        if kind == WRITE_FILE and draw(st.booleans()):
            calls.append((SYNC_FILE, name, None))
    return calls


@given(calls=scripts())
def test_both_ways_do_the_same(tmp_path_factory: pytest.TempPathFactory, calls: list[Call]) -> None:
    """Whatever the script: the same result or errno at the same call, and the same files."""
    here = tmp_path_factory.mktemp("here")
    assert Disk().plain and not Seen().plain
    ours = trio.run(outcome, Disk(), calls, here / "ours")
    theirs = trio.run(outcome, Seen(), calls, here / "theirs")
    assert ours == theirs


@pytest.fixture(params=[Disk, Seen], ids=["native", "python"])
def disk(request: pytest.FixtureRequest) -> Disk:
    made: Disk = request.param()
    return made


def scripts_over(disk: Disk) -> Scripts:
    return Scripts(disk, Changes(disk))


async def test_a_file_that_was_written_and_did_not_get_its_name_is_removed(
    tmp_path: Path, disk: Disk
) -> None:
    """A script that fails in the middle leaves what it moved, and no temporary file."""
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "in it").touch()
    puts = [[Put(f"{tmp_path}/one", b"1")], [Put(f"{tmp_path}/two", b"2"), Put(f"{tmp_path}/three", b"3")]]
    with pytest.raises(IsADirectoryError):
        await scripts_over(disk).run(lambda script: script.put(*puts))
    assert contents(tmp_path) == {"one": b"1", "in it": b""}


async def test_an_error_names_the_call(tmp_path: Path, disk: Disk) -> None:
    """As Python's own errors: number, and the file."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        await scripts_over(disk).run(lambda script: script.put([Put(f"{tmp_path}/file/below", b"")]))
    assert str(caught.value.filename).startswith(f"{tmp_path}/file/")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_for_which_there_is_no_room(tmp_path: Path, disk: Disk) -> None:
    """The kernel takes a part of the bytes and no more: an error, and nothing of the file."""
    with files_of_at_most(1000), pytest.raises(OSError, match="large") as caught:
        await scripts_over(disk).run(lambda script: script.put([Put(f"{tmp_path}/file", bytes(1001))]))
    assert caught.value.errno == errno.EFBIG
    assert contents(tmp_path) == {}


async def test_a_directory_that_was_tidied_away(tmp_path: Path, disk: Disk) -> None:
    """One that we know to be there and is not any more is made again, and durable again."""
    scripts, path = scripts_over(disk), f"{tmp_path}/a/b/c"
    disk.make_root(tmp_path)
    for gone in ("a/b", "a", ""):
        await scripts.run(lambda script: script.put([Put(path, b"1")]))
        assert disk.unsettled(os.path.dirname(path)) == {}
        if gone:
            shutil.rmtree(tmp_path / gone)
    assert contents(tmp_path) == {"c": b"1"}


async def test_put_if_absent_says_what_it_met(tmp_path: Path, disk: Disk) -> None:
    """A file that is there stays, and that it was is said."""
    for value, existed in ((b"one", False), (b"two", True)):
        put = Put(f"{tmp_path}/file", value, absent=True)
        script = await scripts_over(disk).run(lambda script, put=put: script.put([put]))  # type: ignore[misc]
        assert script.existed is existed
    assert contents(tmp_path) == {"file": b"one"}


async def test_cancelled_before_it_begins_or_not_at_all(tmp_path: Path, disk: Disk) -> None:
    """Whoever is cancelled while a script runs waits for it, and it has happened."""
    scripts = scripts_over(disk)
    with trio.CancelScope() as scope:
        scope.cancel()
        await scripts.run(lambda script: script.put([Put(f"{tmp_path}/never", b"")]))
    assert scope.cancelled_caught and contents(tmp_path) == {}
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scripts.run, lambda script: script.put([Put(f"{tmp_path}/done", b"")]))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert contents(tmp_path) == {"done": b""}


async def test_many_at_once(tmp_path: Path, disk: Disk) -> None:
    """Each comes to its own end, also those that fail amid others."""
    (tmp_path / "file").touch()
    scripts, failed = scripts_over(disk), list[int]()

    async def put(number: int) -> None:
        below = "file" if number % 5 == 0 else f"{number % 7}"
        try:
            await scripts.run(
                lambda script: script.put([Put(f"{tmp_path}/{below}/{number}", b"%d" % number)])
            )
        except NotADirectoryError:
            failed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(put, number)
    assert sorted(failed) == list(range(0, 300, 5))
    found = {f"{number}": b"%d" % number for number in range(300) if number % 5}
    assert contents(tmp_path) == {"file": b"", **found}


def run_raw(rounds: Any, calls: Sequence[Call]) -> tuple[list[Any], list[Any]]:
    """Run one script alone; what `ended` says of it, and of syncs."""
    rounds.submit(calls, "tag")
    ended: list[Any] = []
    syncs: list[Any] = []
    while not ended:
        select.select([rounds.fileno()], [], [])
        found = rounds.ended()
        ended += found[0]
        syncs += found[1]
    return ended, syncs


def test_one_sync_for_a_directory_that_is_asked_for_twice(tmp_path: Path) -> None:
    """Syncs that stand side by side are one round, and each thing is synced once in it."""
    calls: list[Call] = [
        (WRITE_FILE, f"{tmp_path}/file", b"bytes"),
        (SYNC_DIRECTORY, str(tmp_path), None),
        (SYNC_FILE, f"{tmp_path}/file", None),
        (SYNC_DIRECTORY, str(tmp_path), None),
        (TOUCH, f"{tmp_path}/file", None),
        (SYNC_DIRECTORY, str(tmp_path), None),
    ]
    ended, syncs = run_raw(native.Rounds(1), calls)
    # The file is not moved by this script, but it has not failed either.
    assert ended == [("tag", -1, 0, False)]
    assert [is_directory for is_directory, _ in syncs] == [False, True, True]
    assert (tmp_path / "file").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ([(SYNC_FILE, "/never/written", None)], ValueError),
        ([(99, "/x", None)], ValueError),
        ([(-1, "/x", None)], ValueError),
        ([(WRITE_FILE, "/x", "text")], TypeError),
        ([(RENAME, "/x", None)], TypeError),
        ([(MAKE_DIRECTORY, None, None)], TypeError),
        ([(MAKE_DIRECTORY, "a\0b", None)], ValueError),
        ([(SET_MODE, "/x", 1)], TypeError),
        ([(WRITE_AT, 1, b"no offset")], TypeError),
        ([(WRITE_AT, 1, ("text", 0))], TypeError),
        ([(UNLINK, "/x")], TypeError),
        (["call"], TypeError),
        (7, TypeError),
    ],
)
def test_what_is_no_script(calls: Any, error: type[Exception]) -> None:
    """It is refused before anything is done, and nothing waits for it."""
    rounds = native.Rounds(1)
    with pytest.raises(error):
        rounds.submit(calls, None)
    assert rounds.ended() == ([], [])


def test_an_open_file_is_written_synced_and_gets_its_mode(tmp_path: Path) -> None:
    """By descriptor, which stays the caller's; one that is closed is an error."""
    rounds = native.Rounds(1)
    descriptor = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR, 0o644)
    calls: list[Call] = [
        (WRITE_AT, descriptor, (b"bytes", 3)),
        (SYNC_FILE, descriptor, None),
        (SET_MODE, descriptor, 0o444),
    ]
    assert run_raw(rounds, calls)[0] == [("tag", -1, 0, False)]
    assert contents(tmp_path) == {"file": b"\0\0\0bytes"}
    assert os.fstat(descriptor).st_mode & 0o777 == 0o444
    os.close(descriptor)
    assert run_raw(rounds, calls)[0] == [("tag", 0, errno.EBADF, False)]


def test_scripts_that_nobody_waits_for_come_to_their_end(tmp_path: Path) -> None:
    """Whoever drops the threads waits for what was begun, and for what was not."""
    rounds = native.Rounds(2)
    for number in range(200):
        rounds.submit([(WRITE_FILE, f"{tmp_path}/{number}", b"x" * number)], None)
    del rounds
    assert len(list(tmp_path.iterdir())) == 200


def test_a_forked_child_may_not_run_any(tmp_path: Path) -> None:
    """It has no threads: an error at once instead of a wait for ever; what it drops is the parent's."""
    code = (
        "import os, sys\n"
        "from trioreg.storage.filesystem._scripts import Rounds\n"
        "rounds = Rounds(1)\n"
        "rounds.submit([(0, sys.argv[1] + '/one', None)], None)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    try:\n"
        "        rounds.submit([(0, sys.argv[1] + '/two', None)], None)\n"
        "    except ChildProcessError:\n"
        "        del rounds\n"
        "        os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "del rounds\n"
        "assert os.listdir(sys.argv[1]) == ['one']\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path], check=True, timeout=60)


def test_a_change_by_itself(tmp_path: Path, disk: Disk) -> None:
    """`replace_file` is a script too, for those who have no Trio."""
    finish(disk, disk.replace_file(tmp_path / "a" / "b", b"one"))
    finish(disk, disk.replace_file(tmp_path / "a" / "b", b"two"))
    assert contents(tmp_path) == {"b": b"two"}
