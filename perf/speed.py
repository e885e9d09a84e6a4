"""The table of speed cases: what is asked of every registry.

The rule: all contenders get the same bytes in the same order; bodies are unique, so nobody wins by
knowing one already.
"""

from collections.abc import Callable, Iterator

from perf.attempt import CONNECTIONS, Attempt
from perf.bodies import Body
from perf.lean import Line, Steps, request
from perf.measures import EACH, IMAGES, REQUESTS, SPEED, Case, Measure, Scale
from perf.operations import REPOSITORY
from perf.plan import MB
from perf.small import AT_ONCE, idle, images, referrers, seed_referrers, seed_tags, small_reads, tags
from perf.transfers import Blob, Push, blobs, docker_push, each_its_own, patches, put
from perf.wrk import tool_for

PULLS_EACH = 3  # so that the stretch is long enough for CPU meters of 10 ms


def pushing(name: str, count: int, size: Callable[[Scale], int], push: Push, how: str, target: float) -> Case:
    """The case of so many pushes at once."""

    def work(run: Attempt, scale: Scale) -> None:
        made = blobs(run, name, count, size(scale), chunked=push is docker_push)
        run.move(name, each_its_own(run, push, made), count * size(scale))

    measure = Measure(name, lambda scale: f"push {count} × {size(scale) // MB} MB{how}", SPEED, target)
    return Case(name, [measure], work, lambda scale: count * size(scale), pushes=True)


def pulling(name: str, count: int, size: Callable[[Scale], int]) -> Case:
    """The case of so many pulls at once, each of its own blob, pulled once before the clock starts."""

    def work(run: Attempt, scale: Scale) -> None:
        made = blobs(run, name, count, size(scale))
        tails = [Body(f"{name}/{number}", size(scale)).end() for number in range(count)]
        total = count * size(scale)
        run.drive(each_its_own(run, put, made), total)

        def client(blob: Blob, tail: bytes, times: int) -> Steps[None]:
            asked = request("GET", f"{REPOSITORY}/blobs/{blob.digest}")
            with Line(run.port) as line:
                for _ in range(times):
                    yield from line.download(asked, blob.size, tail)

        def everyone(times: int) -> Iterator[Steps[None]]:
            return (client(blob, tail, times) for blob, tail in zip(made, tails, strict=True))

        run.drive(everyone(1), total)
        run.move(name, everyone(PULLS_EACH), PULLS_EACH * total)

    measure = Measure(name, lambda scale: f"pull {count} × {size(scale) // MB} MB", SPEED, 1.0)
    return Case(name, [measure], work, lambda scale: count * size(scale))


def rate(name: str, title: Callable[[Scale], str], method: str, target: float = 0.0) -> Measure:
    by = f", {CONNECTIONS} connections, {tool_for(method)}"
    return Measure(name, lambda scale: title(scale) + by, REQUESTS, target)


CASES = [
    pushing("push-1", 1, lambda scale: scale.one, put, "", 1.7),
    pushing("push-40", 40, lambda scale: scale.many, put, "", 3.0),
    pushing("push-100", 100, lambda scale: scale.medium, put, "", 3.0),
    pushing("push-docker", 8, lambda scale: scale.many, docker_push, ", docker's chunked PATCH", 0.0),
    pushing("push-patches", 8, lambda scale: scale.many, patches, ", PATCH of 1 MiB each", 0.0),
    pulling("pull-1", 1, lambda scale: scale.one),
    pulling("pull-40", 40, lambda scale: scale.many),
    Case(
        "small-reads",
        [
            rate("manifest-get", lambda scale: "manifest GET by tag", "GET", 1.0),
            rate("manifest-head", lambda scale: "manifest HEAD by tag", "HEAD", 1.0),
            rate("blob-get", lambda scale: "blob GET, 4 KiB", "GET", 1.0),
        ],
        small_reads,
    ),
    Case(
        "images",
        [
            Measure("images-push", lambda scale: f"push images of 1 MB, {AT_ONCE} at once", IMAGES, 1.5),
            Measure("images-pull", lambda scale: f"pull images of 1 MB, {AT_ONCE} at once", IMAGES),
        ],
        images,
        lambda scale: scale.images * 2 * MB,
    ),
    Case(
        "tags",
        [
            rate("tags-page", lambda scale: f"100 of {scale.tags:,} tags", "GET"),
            rate("tags-all", lambda scale: f"all of {scale.tags:,} tags", "GET"),
        ],
        tags,
        seed=seed_tags,
    ),
    Case(
        "referrers",
        [rate("referrers", lambda scale: f"referrers, {scale.referrers:,}", "GET")],
        referrers,
        seed=seed_referrers,
    ),
    Case("idle", [Measure("idle", lambda scale: f"{scale.idle:,} idle connections", EACH)], idle),
]
