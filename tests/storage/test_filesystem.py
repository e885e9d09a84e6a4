"""What only a directory can show: caches that others invalidate, the layout, records, order of syncs."""

from __future__ import annotations

import errno
import importlib.util
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trioreg.metrics import SYNC_SECONDS
from trioreg.oci.digest import digest_of
from trioreg.oci.names import RepositoryName, Tag, UploadId
from trioreg.storage import layout, record
from trioreg.storage.base import Checkpoint, Entry, StorageError, StorageFull, UploadNotFound
from trioreg.storage.catalog import Catalog, NewManifest
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.script import WRITE_FILE, Put, Script

NAME = RepositoryName("a/b")
KEY = layout.tag_link(NAME, Tag("latest"))
BLOB = digest_of(b"a blob")
LONG_AGO = 1_000_000_000


def age(path: Path) -> None:
    """Make a file or directory look as if it had not changed for long, so that it is cached."""
    os.utime(path, (LONG_AGO, LONG_AGO))


class CountingDisk(Disk):
    """Knows every call, in order: its name and what it was done to."""

    def __init__(self, *, durable: bool = True):
        super().__init__(durable=durable)
        self.calls: list[tuple[str, Path]] = []

    def _note(self, call: str, what: Path | int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{what}")) if isinstance(what, int) else what
        self.calls.append((call, path))

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._note("pwrite", descriptor)
        return super().pwrite(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        self._note("sync_data", descriptor)
        super().sync_data(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._note("sync_directory", path)
        super().sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename_from", source)
        self._note("rename", target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._note("link_from", source)
        self._note("link", target)
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._note("unlink", path)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._note("mkdir", path)

    def first(self, call: str, path: Path, after: int = -1) -> int:
        """Where `call` was made on `path`, later than `after`; AssertionError if it was not."""
        for at, each in enumerate(self.calls):
            if at > after and each == (call, path):
                return at
        raise AssertionError(f"no {call} of {path} after {after} in {self.calls}")

    def check_durable(self, target: Path) -> None:
        """The file at `target` was written, synced, named, and its directories synced, in that order."""
        named = max(
            at for at, each in enumerate(self.calls) if each in [("rename", target), ("link", target)]
        )
        source = self.calls[named - 1][1]
        written = max(at for at, each in enumerate(self.calls) if each == ("pwrite", source))
        assert written < self.first("sync_data", source, written) < named
        self.first("sync_directory", target.parent, named)
        for path in (path for call, path in self.calls if call == "mkdir" and path in target.parents):
            made = self.first("mkdir", path)
            assert self.first("sync_directory", path.parent, made)


# Caches.


async def test_change_by_another_instance(root: Path) -> None:
    """A value that another process set is seen at once, however warm the cache is."""
    ours, theirs = FilesystemStorage(root), FilesystemStorage(root)
    await ours.put(KEY, b"one")
    age(root / KEY)
    for _ in range(2):
        assert await ours.get(KEY) == b"one"
    await theirs.put(KEY, b"two")
    assert await ours.get(KEY) == b"two"
    await theirs.delete(KEY)
    assert await ours.get(KEY) is None


async def test_two_changes_in_one_tick(root: Path) -> None:
    """Values that follow each other faster than the filesystem's clock are each seen."""
    ours, theirs = FilesystemStorage(root), FilesystemStorage(root)
    for at in range(50):
        value = b"%03d" % at
        await theirs.put(KEY, value)
        assert await ours.get(KEY) == value


async def test_two_changes_with_one_timestamp(root: Path) -> None:
    """Even where timestamps do not tell two values apart, an unsettled one is never trusted."""
    storage = FilesystemStorage(root)
    path = root / KEY
    await storage.put(KEY, b"one")
    status = path.stat()
    assert await storage.get(KEY) == b"one"
    path.write_bytes(b"two")  # the same inode, size, and then the same time
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert await storage.get(KEY) == b"two"


async def test_settled_values_are_not_read_again(root: Path) -> None:
    """A value that has settled is answered from memory while one `stat` finds it unchanged."""
    storage = FilesystemStorage(root)
    path = root / KEY
    await storage.put(KEY, b"one")
    age(path)
    assert await storage.get(KEY) == b"one"
    path.write_bytes(b"two")
    age(path)  # a forgery that no honest writer can make: the stamp is that of the first
    assert await storage.get(KEY) == b"one"


async def test_listing_by_another_instance(root: Path) -> None:
    """An entry that another process made or removed is in the next list, however warm the cache is."""
    ours, theirs = FilesystemStorage(root), FilesystemStorage(root)
    await ours.put("a/one", b"")
    age(root / "a")
    for _ in range(2):
        assert list(await ours.children("a")) == ["one"]
    await theirs.put("a/two", b"")
    assert list(await ours.children("a")) == ["one", "two"]
    await theirs.delete("a/one")
    assert list(await ours.children("a")) == ["two"]


async def test_unreadable_is_a_storage_error(files: FilesystemStorage, root: Path) -> None:
    """What the system refuses is a StorageError, and no value that is absent."""
    loop = root / "repositories" / "loop"
    loop.symlink_to(loop)
    for verb in (files.get, files.stamp, files.children, files.delete):
        with pytest.raises(StorageError):
            await verb("repositories/loop/x")


# Layout.


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def test_layout(files: FilesystemStorage, root: Path) -> None:
    """The tree on disk is the tree that is drawn; link files hold just the digest."""
    catalog, subject = Catalog(files), digest_of(b"subject", "sha512")
    await files.put_blob(BLOB, b"a blob")
    await catalog.link_blob(NAME, BLOB)
    await catalog.link_manifest(NAME, BLOB, "a/b")
    await catalog.set_tag(NAME, Tag("latest"), BLOB)
    await catalog.add_referrer(NAME, subject, BLOB, b"{}")
    upload = (await files.create_upload(NAME, "sha256")).id
    found = tree(root)
    assert not any(found.pop("locks/removals"))
    locks = {path for path in found if path.startswith("locks/")}
    assert locks and not any(found.pop(path) for path in locks)
    state = found.pop(f"uploads/{upload}/state")
    assert record.decode(state) is not None
    link = str(BLOB).encode()
    assert found == {
        f"blobs/sha256/{BLOB.hex[:2]}/{BLOB.hex}": b"a blob",
        f"repositories/a/b/_layers/sha256/{BLOB.hex}/link": link,
        f"repositories/a/b/_manifests/revisions/sha256/{BLOB.hex}/link": link,
        f"repositories/a/b/_manifests/revisions/sha256/{BLOB.hex}/media-type": b"a/b",
        "repositories/a/b/_manifests/tags/latest/current/link": link,
        f"repositories/a/b/_referrers/sha512/{subject.hex}/sha256/{BLOB.hex}": b"{}",
        f"uploads/{upload}/data": b"",
    }


async def test_a_list_of_ten_thousand_tags_is_remembered(files: FilesystemStorage, root: Path) -> None:
    """With the cache as it is by default; so a page of it costs no listing."""
    catalog = Catalog(files)
    await catalog.set_tag(NAME, Tag("tag-0"), BLOB)
    here = root / layout.tags(NAME)
    for number in range(1, 10_000):
        os.link(root / layout.tag_link(NAME, Tag("tag-0")), here / f"tag-{number:06}")
    age(here)
    names = await files.children(layout.tags(NAME))
    assert len(names) == 10_000
    assert await files.children(layout.tags(NAME)) is names


async def test_touch(root: Path) -> None:
    """A blob that somebody relies on gets a fresh time once it is old, and not before."""
    storage = FilesystemStorage(root, touch_after=3600)
    await storage.put_blob(BLOB, b"a blob")
    path = root / layout.blob(BLOB)
    young = path.stat().st_mtime_ns
    assert await storage.touch(BLOB) == 6
    assert path.stat().st_mtime_ns == young
    for rely in (storage.touch(BLOB), storage.put_blob(BLOB, b"a blob")):
        age(path)
        await rely
        assert path.stat().st_mtime > LONG_AGO + 3600


async def test_published_blob_is_read_only(files: FilesystemStorage, root: Path) -> None:
    """A published upload cannot be written by a user without privilege."""
    upload = (await files.create_upload(NAME, "sha256")).id
    async with files.lease_upload(upload, 0.0) as session:
        await session.write(memoryview(b"a blob"))
        await session.commit(BLOB)
    assert stat.S_IMODE((root / layout.blob(BLOB)).stat().st_mode) == 0o444
    assert list((root / "uploads").iterdir()) == []


async def test_foreign_files_among_uploads(files: FilesystemStorage, root: Path) -> None:
    """What is no session of ours among the uploads is passed over."""
    (root / "uploads" / "lost+found").mkdir()
    (root / "uploads" / "README").write_text("")
    (root / "uploads" / "01234567-89ab-4def-8123-456789abcdef").mkdir()
    assert [each async for each in files.list_uploads()] == []


# Records.

SYNCED = Checkpoint(4, b"state of 4")
WRITTEN = Checkpoint(8, b"state of 8")
BYTES = b"01234567"


async def session_of_two_points(root: Path) -> UploadId:
    """A session in boot "A": durable to 4 bytes, written to 8."""
    storage = FilesystemStorage(root, boot="A")
    upload = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(upload, 0.0) as session:
        await session.write(memoryview(BYTES[:4]))
        await session.checkpoint(SYNCED, sync=True)
        await session.write(memoryview(BYTES[4:]))
        await session.checkpoint(WRITTEN, sync=False)
    return upload


@pytest.mark.parametrize(
    ("boot", "size", "expected"),
    [
        ("A", 8, WRITTEN),
        ("A", 99, WRITTEN),  # longer: cut
        ("A", 7, SYNCED),  # shorter: the older one
        ("A", 4, SYNCED),
        ("A", 3, Checkpoint(0, None)),
        ("A", 0, Checkpoint(0, None)),
        ("B", 8, SYNCED),  # another boot: only what was durable
        ("B", 99, SYNCED),
        ("B", 4, SYNCED),
        ("B", 3, Checkpoint(0, None)),
    ],
)
async def test_resume_point(root: Path, boot: str, size: int, expected: Checkpoint) -> None:
    """A session goes on from the newest point whose bytes are certain, and the file is cut there."""
    upload = await session_of_two_points(root)
    data = root / layout.upload(upload) / "data"
    os.truncate(data, size)
    storage = FilesystemStorage(root, boot=boot)
    assert (await storage.upload_info(upload)).offset == expected.offset
    async with storage.lease_upload(upload, 0.0) as session:
        assert session.resumed == expected
        assert session.info.offset == expected.offset
        assert await session.read(0, 100) == BYTES[: expected.offset]
    assert data.stat().st_size == expected.offset


async def test_going_back_forgets_the_newer_point(root: Path) -> None:
    """Once a session went on from an older point with other bytes, the newer point never counts again."""
    upload = await session_of_two_points(root)
    os.truncate(root / layout.upload(upload) / "data", 6)
    storage = FilesystemStorage(root, boot="A")
    async with storage.lease_upload(upload, 0.0) as session:
        assert session.resumed == SYNCED
        await session.write(memoryview(b"other bytes"))  # and killed before the next checkpoint
    async with storage.lease_upload(upload, 0.0) as session:
        assert session.resumed == SYNCED
    os.truncate(root / layout.upload(upload) / "data", 3)
    async with storage.lease_upload(upload, 0.0) as session:
        assert session.resumed == Checkpoint(0, None)
        await session.write(memoryview(b"other bytes"))
    for boot in ("A", "B"):
        assert (await FilesystemStorage(root, boot=boot).upload_info(upload)).offset == 0


async def test_without_durability_nothing_is_synced(root: Path) -> None:
    """A checkpoint that could not be made durable is not believed after a power loss."""
    storage = FilesystemStorage(root, Disk(durable=False), boot="A")
    upload = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(upload, 0.0) as session:
        await session.write(memoryview(BYTES))
        await session.checkpoint(WRITTEN, sync=True)
    assert (await storage.upload_info(upload)).offset == 8
    assert (await FilesystemStorage(root, boot="B").upload_info(upload)).offset == 0


def other_version(state: bytes) -> bytes:
    found = record.decode(state)
    assert found is not None
    return record.encode(msgspec.structs.replace(found, version=record.VERSION + 1))


TORN: dict[str, Any] = {
    "empty": lambda state: b"",
    "one byte short": lambda state: state[:-1],
    "half": lambda state: state[: len(state) // 2],
    "zeroes": lambda state: bytes(len(state)),
    "a letter changed": lambda state: state.replace(b"a/b", b"a/c"),
    "a digit changed": lambda state: state.replace(b"[8,", b"[9,"),
    "more behind": lambda state: state + b"x",
    "twice": lambda state: state * 2,
    "another version": other_version,
    "not UTF-8": lambda state: b"\xff" + state,
}


@pytest.mark.parametrize("how", TORN)
async def test_torn_record(root: Path, how: str) -> None:
    """A record that is torn, changed or of another version is none: the session is unknown."""
    upload = await session_of_two_points(root)
    path = root / layout.upload(upload) / "state"
    whole = path.read_bytes()
    torn = TORN[how](whole)
    assert torn != whole
    path.write_bytes(torn)
    storage = FilesystemStorage(root, boot="A")
    with pytest.raises(UploadNotFound):
        await storage.upload_info(upload)
    with pytest.raises(UploadNotFound):
        async with storage.lease_upload(upload, 0.0):
            pass
    assert [each async for each in storage.list_uploads()] == []


def test_every_prefix_of_a_record() -> None:
    """However little of a record reached the disk, it is not taken for a whole one."""
    saved = record.new_record(NAME, "sha512", 1.5, "A").after(WRITTEN, "A", synced=True)
    state = record.encode(saved)
    assert record.decode(state) == saved
    assert [record.decode(state[:end]) for end in range(len(state))] == [None] * len(state)


# Durability.


async def push(storage: FilesystemStorage, data: bytes) -> None:
    upload = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(upload, 0.0) as session:
        await session.write(memoryview(data))
        await session.checkpoint(Checkpoint(len(data), b""), sync=False)
        await session.commit(digest_of(data))


async def test_order_of_a_commit(root: Path) -> None:
    """Bytes synced, then named, then every directory that gained an entry; then the session is removed."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    await push(storage, b"a blob")
    target = root / layout.blob(BLOB)
    disk.check_durable(target)
    named = disk.first("rename", target)
    removed = disk.first("unlink", disk.calls[named - 1][1].with_name("state"))
    assert disk.first("sync_directory", target.parent, named) < removed


@pytest.mark.parametrize("there", [False, True], ids=["new", "known"])
async def test_order_of_a_commit_with_its_link(root: Path, there: bool) -> None:
    """Bytes and link are synced, the blob has its name first, the session goes when all is durable."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    if there:
        await storage.put_blob(BLOB, b"a blob")
    upload = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(upload, 0.0) as session:
        disk.calls.clear()
        await session.write(memoryview(b"a blob"))
        await storage.commit_and(session, BLOB, Entry(KEY, b"link", absent=True))
    assert (await storage.size(BLOB), await storage.get(KEY)) == (6, b"link")
    assert list((root / "uploads").iterdir()) == []
    disk.check_durable(root / KEY)
    if not there:
        disk.check_durable(root / layout.blob(BLOB))
        linked = disk.first("link", root / KEY, disk.first("rename", root / layout.blob(BLOB)))
        removed = disk.first("unlink", root / layout.upload(upload) / "state", linked)
        for path in (root / KEY, root / layout.blob(BLOB)):
            assert disk.first("sync_directory", path.parent, linked) < removed


class TidyingDisk(Disk):
    """Somebody takes a directory away just before a link is made in it, once."""

    tidied = False

    def link(self, source: Path, target: Path) -> None:
        if not self.tidied:
            self.tidied = True
            source.unlink()
            source.parent.rmdir()
        super().link(source, target)


async def test_a_directory_goes_when_the_blob_has_its_name(root: Path) -> None:
    """The link is written again, and the commit comes to its end."""
    disk = TidyingDisk()
    storage = FilesystemStorage(root, disk)
    upload = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(upload, 0.0) as session:
        await session.write(memoryview(b"a blob"))
        await storage.commit_and(session, BLOB, Entry(KEY, b"link", absent=True))
    assert disk.tidied
    assert (await storage.size(BLOB), await storage.get(KEY)) == (6, b"link")
    assert list((root / "uploads").iterdir()) == []


@pytest.mark.parametrize("verb", ["put", "put_if_absent", "put_blob"])
async def test_order_of_a_small_write(root: Path, verb: str) -> None:
    """A small value is synced before it gets its name, its directories after that."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    if verb == "put_blob":
        await storage.put_blob(BLOB, b"a blob")
        disk.check_durable(root / layout.blob(BLOB))
        return
    await getattr(storage, verb)(KEY, b"value")
    disk.check_durable(root / KEY)
    if verb == "put":
        disk.calls.clear()
        await storage.put(KEY, b"other")
        disk.check_durable(root / KEY)


async def test_order_of_a_manifest(root: Path) -> None:
    """All files are synced first; then come the bytes and what goes with them, the link, the tag."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    disk.calls.clear()
    tag, subject = Tag("latest"), digest_of(b"subject")
    new = NewManifest(BLOB, b"a blob", "a/b", subject, b"{}", tag)
    assert await Catalog(storage).publish(storage, NAME, new)
    needs = [layout.blob(BLOB), layout.referrer(NAME, subject, BLOB), layout.revision_media_type(NAME, BLOB)]
    order = [needs, [layout.revision_link(NAME, BLOB)], [layout.tag_link(NAME, tag)]]
    at = max(at for at, (call, _) in enumerate(disk.calls) if call == "sync_data")
    for keys in order:
        paths = [root / key for key in keys]
        named = [
            max(i for i, each in enumerate(disk.calls) if each in [("rename", p), ("link", p)]) for p in paths
        ]
        assert min(named) > at, "nothing has its name before what it needs is durable"
        for path in paths:
            disk.check_durable(path)
        at = max(disk.first("sync_directory", path.parent, max(named)) for path in paths)
    assert len([call for call, _ in disk.calls if call == "sync_data"]) == 5


@pytest.mark.parametrize("verb", ["delete", "delete_blob"])
async def test_order_of_a_delete(root: Path, verb: str) -> None:
    """What was deleted is durably gone: the directory is synced after the name went."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    await storage.put(KEY, b"value")
    await storage.put_blob(BLOB, b"a blob")
    disk.calls.clear()
    if verb == "delete_blob":
        await storage.delete_blob(BLOB)
    else:
        await storage.delete(KEY)
    gone = max(at for at, (call, _) in enumerate(disk.calls) if call in ("unlink", "rename_from"))
    parent = (root / (layout.blob(BLOB) if verb == "delete_blob" else KEY)).parent
    disk.first("sync_directory", parent, gone)


async def test_every_directory_that_gained_an_entry_is_synced(root: Path) -> None:
    """After the rename, from the deepest up; so one commit of the journal carries all the levels."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    disk.calls.clear()
    await storage.put(KEY, b"value")
    parents = [parent for parent in (root / KEY).parents if parent.is_relative_to(root / "repositories")]
    made = [path for call, path in disk.calls if call == "mkdir"]
    assert made[-1] == parents[0]
    renamed = disk.first("rename", root / KEY)
    synced = [path for call, path in disk.calls[renamed:] if call == "sync_directory"]
    assert synced == parents, "each once, the deepest first"


async def test_a_crash_before_the_sync_of_a_directory_is_made_good(root: Path) -> None:
    """A directory that somebody made and never synced is synced by the next one who relies on it."""
    FilesystemStorage(root)
    made = root / "repositories" / "a"
    made.mkdir()  # by a process that was killed before it synced the directory above
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    disk.calls.clear()
    await storage.put(KEY, b"value")
    disk.first("sync_directory", made.parent)


async def test_a_blob_that_was_not_synced_is_before_we_rely_on_it(root: Path) -> None:
    """A put that finds the blob there makes sure of its name, for its writer may have been killed."""
    disk = CountingDisk()
    storage = FilesystemStorage(root, disk)
    await storage.put_blob(BLOB, b"a blob")
    disk.calls.clear()
    await storage.put_blob(BLOB, b"a blob")
    disk.first("sync_directory", (root / layout.blob(BLOB)).parent)
    disk.calls.clear()
    await push(storage, b"a blob")
    disk.first("sync_directory", (root / layout.blob(BLOB)).parent)


def syncs() -> list[int]:
    """What the metric of syncs says so far: numbers and seconds."""
    return [SYNC_SECONDS.total(cell) for cell in range(SYNC_SECONDS.width * len(SYNC_SECONDS.values))]


@pytest.mark.parametrize("disk", [Disk(), CountingDisk()], ids=["plain", "seen"])
async def test_syncs_are_counted(root: Path, disk: Disk) -> None:
    """Those of a put: of its file, and of directories, whichever thread makes them."""
    storage = FilesystemStorage(root, disk)
    counted = syncs()
    await storage.put(KEY, b"value")
    for kind, number in (("data", 1), ("directory", 7)):
        first = SYNC_SECONDS.at(kind) * SYNC_SECONDS.width
        added = [after - before for before, after in zip(counted, syncs(), strict=True)]
        assert sum(added[first : first + SYNC_SECONDS.width - 1]) == number


@pytest.mark.parametrize("disk", [Disk(durable=False), CountingDisk(durable=False)], ids=["plain", "seen"])
async def test_no_durability_no_syncs(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With durability "none" the kernel is never asked to sync."""

    def sync(descriptor: int) -> None:
        raise AssertionError("a sync")

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "fdatasync", sync)
    counted = syncs()
    storage = FilesystemStorage(root, disk)
    await push(storage, b"a blob")
    await push(storage, b"a blob")
    await storage.put_blob(digest_of(b"other"), b"other")
    await storage.put(KEY, b"value")
    await storage.put_if_absent(KEY + "2", b"value")
    await storage.delete(KEY)
    await storage.delete(KEY + "2")
    await storage.delete_blob(BLOB)
    assert syncs() == counted


# Long lists.


async def test_ten_thousand_tags(root: Path) -> None:
    """Ten thousand tags page in order, each once."""
    storage = FilesystemStorage(root, Disk(durable=False))
    names = sorted(f"v{at}" for at in range(10_000))
    for name in names:
        path = root / layout.tag_link(NAME, Tag(name))
        path.parent.mkdir(parents=True)
        path.write_text(str(BLOB))
    catalog = Catalog(storage)
    assert await catalog.tags(NAME, None, None) == (names, False)
    found: list[str] = []
    last, more = None, True
    while more:
        page, more = await catalog.tags(NAME, 999, last)
        found += page
        last = page[-1]
    assert found == names


@pytest.mark.parametrize("synced", [0, 4])
async def test_a_failed_sync_takes_back_what_it_was_to_secure(tmp_path: Path, synced: int) -> None:
    """After EIO the kernel may call lost pages clean, so a retry that succeeds proves nothing about them."""

    class Failing(Disk):
        fail = False

        def sync_data(self, descriptor: int) -> None:
            if self.fail:
                raise OSError(5, "Input/output error")
            super().sync_data(descriptor)

    disk = Failing()
    storage = FilesystemStorage(tmp_path, disk)
    session = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(session, 0) as upload:
        await upload.write(memoryview(b"1234"))
        if synced:
            await upload.checkpoint(Checkpoint(4, b"state"), sync=True)
        await upload.write(memoryview(b"5678"))
        disk.fail = True
        with pytest.raises(StorageError):
            await upload.commit(digest_of(b"12345678"))
        await upload.checkpoint(Checkpoint(8, b"later"), sync=False)
    disk.fail = False
    assert await storage.size(digest_of(b"12345678")) is None
    async with storage.lease_upload(session, 0) as upload:
        assert upload.resumed == Checkpoint(synced, b"state" if synced else None)


class LosingDisk(Disk):
    """Once broken, it loses the bytes that a sync was to secure, and has room for no record (`full`)."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.full = ""

    def sync_data(self, descriptor: int) -> None:
        if self.broken:
            # What Linux does: the page is called clean, and what is read back later is what the disk has.
            os.pwrite(descriptor, bytes(4), 4)
            raise OSError(errno.EIO, "Input/output error")
        super().sync_data(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        if self.full == "rename" and target.name == "state":
            raise OSError(errno.ENOSPC, "No space left on device")
        super().rename(source, target)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        if self.full == "pwrite":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(descriptor, data, offset)


async def check_resumed_and_finished(storage: FilesystemStorage, session: UploadId, synced: int) -> None:
    """The session goes on from what was synced, and becomes the blob that it is called."""
    whole = b"12345678"
    async with storage.lease_upload(session, 0) as upload:
        assert upload.resumed == Checkpoint(synced, b"synced" if synced else None)
        assert await upload.read(0, 100) == whole[:synced]
        await upload.write(memoryview(whole[synced:]))
        await upload.commit(digest_of(whole))
    blob = await storage.open_blob(digest_of(whole))
    assert await blob.read(0, 100) == whole
    blob.close()


@pytest.mark.parametrize("full", ["rename", "pwrite"])
@pytest.mark.parametrize("synced", [0, 4])
async def test_a_failed_sync_and_no_room_to_say_so(root: Path, synced: int, full: str) -> None:
    """An older record vouches for bytes that are lost, and it cannot be replaced: they count no more."""
    disk = LosingDisk()
    storage = FilesystemStorage(root, disk)
    session = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(session, 0) as upload:
        await upload.write(memoryview(b"1234"))
        await upload.checkpoint(Checkpoint(4, b"synced"), sync=bool(synced))
        await upload.write(memoryview(b"5678"))
        await upload.checkpoint(Checkpoint(8, b"written"), sync=False)
        disk.broken, disk.full = True, full
        with pytest.raises(StorageError):
            await upload.commit(digest_of(b"12345678"))
        with pytest.raises(StorageFull):
            await upload.checkpoint(Checkpoint(8, b"written"), sync=False)
    assert await storage.size(digest_of(b"12345678")) is None
    disk.broken, disk.full = False, ""
    # Nor are they told to the client.
    assert (await storage.upload_info(session)).offset == synced
    await check_resumed_and_finished(storage, session, synced)


async def test_a_failed_sync_while_the_next_block_is_written(root: Path) -> None:
    """A block that was on its way when the bytes before it were given up makes none of them count again."""
    disk = LosingDisk()
    storage = FilesystemStorage(root, disk)
    session = (await storage.create_upload(NAME, "sha256")).id
    async with storage.lease_upload(session, 0) as upload:
        await upload.write(memoryview(b"12345678"))
        await upload.checkpoint(Checkpoint(8, b"written"), sync=False)
        disk.broken, disk.full = True, "rename"
        with pytest.raises(StorageError):
            await upload.checkpoint(Checkpoint(8, b"written"), sync=True)
        await upload.write(memoryview(b"9abc"))
        with pytest.raises(StorageFull):
            await upload.checkpoint(Checkpoint(8, b"written"), sync=False)
    disk.broken, disk.full = False, ""
    (root / layout.UPLOADS / session / ".state").unlink(missing_ok=True)
    await check_resumed_and_finished(storage, session, 0)


@pytest.mark.parametrize("follows", ["read", "checkpoint", "commit"])
async def test_bytes_that_are_written_soon(root: Path, follows: str) -> None:
    """Nothing is written before what follows, which fails if they cannot be; the next one tries again."""
    disk = LosingDisk()
    storage = FilesystemStorage(root, disk)
    session = (await storage.create_upload(NAME, "sha256")).id
    data = root / layout.UPLOADS / session / "data"
    async with storage.lease_upload(session, 0) as upload:
        await upload.write(memoryview(b"1234"))
        upload.write_soon(b"5678")
        assert (upload.info.offset, data.stat().st_size) == (8, 4)

        async def follow() -> None:
            if follows == "read":
                assert await upload.read(2, 6) == b"345678"
            elif follows == "checkpoint":
                await upload.checkpoint(Checkpoint(8, b"8"), sync=False)
            else:
                await upload.commit(digest_of(b"12345678"))

        disk.full = "pwrite"
        with pytest.raises(StorageFull):
            await follow()
        assert data.stat().st_size == 4
        disk.full = ""
        await follow()
        if follows == "commit":
            assert await storage.size(digest_of(b"12345678")) == 8
        else:
            assert data.read_bytes() == b"12345678"


@pytest.mark.parametrize("name", ["_x", "_manifests", "_layers", "__", "_x.y-z"])
@pytest.mark.parametrize("others", [0, 1])
async def test_a_deleted_tag_with_an_underscore(root: Path, name: str, others: int) -> None:
    """It goes like any other: not listed, though the listing was known, and without a directory."""
    storage = FilesystemStorage(root)
    catalog = Catalog(storage)
    here = root / layout.tags(NAME)
    for other in range(others):
        await catalog.set_tag(NAME, Tag(f"other{other}"), BLOB)
    await catalog.set_tag(NAME, Tag(name), BLOB)
    for _ in range(2):
        age(here)
        assert name in (await catalog.tags(NAME, None, None))[0]
    assert await catalog.delete_tag(NAME, Tag(name))
    assert not (here / name).exists()
    assert len(list(here.iterdir()) if here.exists() else []) == others
    assert name not in (await catalog.tags(NAME, None, None))[0]
    assert await catalog.get_tag(NAME, Tag(name)) is None


@pytest.mark.parametrize("call", ["rename", "link", "behind link"])
async def test_a_temporary_file_that_a_purge_took(root: Path, call: str) -> None:
    """A purge whose clock is another year's takes it for a dead process's: it is written once more."""

    class Purged(Disk):
        times = 0

        def purge(self, temporary: Path) -> None:
            self.times += 1
            if self.times <= 2:
                os.unlink(temporary)

        def rename(self, source: Path, target: Path) -> None:
            self.purge(source)
            super().rename(source, target)

        def link(self, source: Path, target: Path) -> None:
            if call == "link":
                self.purge(source)
            super().link(source, target)
            if call != "link":
                self.purge(source)

    disk = Purged()
    storage = FilesystemStorage(root, disk)
    if call == "rename":
        await storage.put(KEY, b"value")
    else:
        assert await storage.put_if_absent(KEY, b"value")
    assert disk.times >= 1
    assert await storage.get(KEY) == b"value"


def test_processes_of_one_number_have_other_temporary_files(root: Path) -> None:
    """As in containers that share a storage, or behind a kill -9: none stands in the other's way."""
    found = importlib.util.find_spec(Script.__module__)
    assert found is not None and found.loader is not None
    names = set()
    for _ in range(2):
        life = importlib.util.module_from_spec(found)
        found.loader.exec_module(life)
        script = life.Script(Disk(durable=False))
        script.put([Put(f"{root}/file", b"")])
        names |= {path for kind, path, _ in script.calls if kind == WRITE_FILE}
    assert len(names) == 2
