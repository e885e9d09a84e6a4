"""The compiled digest engine. What it is, and its rules: docs/engine.md."""

from typing import Literal, TypedDict, final

from typing_extensions import Buffer

class Capabilities(TypedDict):
    avx512: bool
    avx2: bool
    sha_ni: bool
    lanes: int
    """Streams side by side when sixteen or more have bytes."""
    single: Literal["sha-ni", "openssl", "portable"]
    single_sha512: Literal["openssl", "portable"]
    ways: dict[str, tuple[int, float]]
    """Name of each way to hash: its lanes, and GB/s as measured in this process."""
    choice: list[str]
    """The way taken when 1, 2 … 16 streams have bytes."""

class Statistics(TypedDict):
    batches: int
    jobs: int
    bytes: int
    wakeups: int
    """Times the completed list stopped being empty."""
    waiting: int
    """Jobs not begun."""
    hashing: int
    writing: int
    """Jobs that are being hashed; that are hashed and being written."""
    completed: int
    """Jobs ended, not collected."""
    lane_blocks: int
    """Blocks hashed in ways of several lanes; over `lane_places`, how full the lanes were."""
    lane_places: int
    single_blocks: int
    sizes: tuple[int, ...]
    """Batches of 1, 2, at most 4, 8 … 64 jobs."""

@final
class State:
    """A resumable SHA-2 state of one upload.

    While an engine has jobs of it that `completed()` has not handed out, or another thread is in
    `update`, every method raises RuntimeError.
    """

    def __new__(cls, algorithm: str) -> State:
        """sha256 or sha512, else ValueError."""

    def update(self, data: Buffer) -> None:
        """Hashes at once, in this thread; releases the GIL from 2 KiB."""

    def digest(self) -> bytes:
        """Of the bytes so far; the state goes on."""

    def copy(self) -> State: ...
    def save(self) -> bytes:
        """Words big-endian, length in bytes as 16 bytes big-endian, then the unfinished block."""

    @classmethod
    def load(cls, algorithm: str, saved: Buffer) -> State:
        """What `save` made, of whatever engine. ValueError if the shape is wrong."""

    @property
    def algorithm(self) -> Literal["sha256", "sha512"]: ...
    @property
    def length(self) -> int:
        """Bytes hashed so far; may be read while jobs are in flight, and then counts those begun."""

@final
class Engine:
    """Native threads that hash jobs of many states side by side, and write them."""

    def __new__(cls, threads: int, *, lanes: int | None = None, batch: int = 16) -> Engine:
        """`lanes` None takes what was measured to be fastest; a number forces that way.

        ValueError: threads not 1 to 64, batch not 1 to 64, or lanes this CPU does not have.
        OSError: no more threads or descriptors.
        """

    def submit(
        self,
        state: State,
        buffer: Buffer,
        start: int,
        end: int,
        fd: int,
        offset: int,
        tag: object,
        want_state: bool = False,
        direct: int = -1,
        reserve: int = 0,
    ) -> None:
        """Hashes ``buffer[start:end]`` into `state`; with ``fd >= 0`` also writes it at `offset`.

        `direct` is the same file opened with O_DIRECT: whole pages leave by it, if they lie in memory as
        they will in the file. `reserve` bytes from `offset` on are allocated before, the size unchanged.

        Never waits. The job owns buffer, state and tag until `completed` hands it out. `fd` and `direct`
        are the caller's: keep them open until then. Jobs of one state are hashed in order of submission, the
        write of one may overlap the hash of the next. RuntimeError: the engine is closed, or the
        state is in another engine. ValueError: no such bytes or offset.
        """

    def completed(self) -> list[tuple[object, int, bytes | None]]:
        """(tag, errno or 0, saved state right after this job) of the jobs that ended.

        Jobs of one state come in order of submission. ECANCELED: not begun before `close`, neither
        hashed nor written. Any other errno is the write's; the bytes were hashed.
        """

    def fileno(self) -> int:
        """An eventfd, readable while `completed` has something; open as long as the engine lives."""

    def close(self) -> None:
        """Waits for the jobs that have begun and ends the threads; the others become ECANCELED."""

    def statistics(self) -> Statistics: ...
    def outstanding(self) -> list[tuple[object, bool]]:
        """(tag, whether it is hashed already) of the jobs that `completed` has not handed out."""

def capabilities() -> Capabilities: ...
def set_openssl(update256: int, update512: int, /) -> None:
    """Addresses of OpenSSL's SHA256_Update and SHA512_Update; zeros forget them.

    Call it before engines are made. ValueError if they compute something else.
    """

def use_single(name: str | None, /) -> None:
    """Forces "sha-ni", "openssl" or "portable" for lone streams; None chooses again.

    For tests and benchmarks, before engines are made. ValueError if it is not to be had.
    """
