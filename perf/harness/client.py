"""The clients of a scenario: `python -m perf.harness.client`, a process of constant memory.

Reads a `Job` (a line of JSON) from standard input, prepares its digests, fills the catalog if it is
process 0, says Ready, and begins when the next line comes. The rule: every operation of the job is told of,
done or failed, also those that time cut; nothing of an operation is kept once it is told.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from random import Random

import trio

from perf.bodies import Body, Digests, Source
from perf.harness.actor import CONFIG_SIZE, Actor, Left, World
from perf.harness.draws import arrival_times, popular, size_pool, weighted
from perf.harness.messages import Beat, Ended, Filled, Job, Operation, Ready, Said, decode_job, encode
from perf.harness.scenario import NEED_CATALOG, Group
from perf.plan import KIB
from perf.wire import Refused

MANY = 1 << 30  # operations of a client that has seconds instead of a number
FILLERS = 8  # clients that push the catalog


class Load:
    """The part of a job that this process does."""

    def __init__(self, job: Job, world: World, say: Callable[[Said], None]) -> None:
        self._job = job
        self._scenario = job.scenario
        self._world = world
        self._say = say
        self._pools = {group.name: self._pool(group) for group in self._scenario.group}
        self._catalog = self._catalog_bodies()
        self._open: dict[int, tuple[str, str, float]] = {}
        self._begin = 0.0

    def sizes(self) -> Iterator[int]:
        """Of every body this process may meet."""
        yield CONFIG_SIZE
        for pool in self._pools.values():
            yield from pool
        yield from (body.size for body in self._catalog)

    def _pool(self, group: Group) -> list[int]:
        if group.sizes is None:
            return []
        count = MANY if group.seconds else group.clients * group.each
        return size_pool(group.sizes, count, f"{self._scenario.seed} {group.name}")

    def _catalog_bodies(self) -> list[Body]:
        catalog = self._scenario.catalog
        if catalog is None:
            return []
        pool = size_pool(catalog.sizes, catalog.count, f"{self._scenario.seed} catalog")
        names = (f"{self._job.name}/catalog/{number}" for number in range(catalog.count))
        return [Body(name, pool[number % len(pool)]) for number, name in enumerate(names)]

    async def fill(self) -> None:
        """Push the catalog: each blob in one PUT, and a manifest with it as config and layer."""

        async def some(first: int) -> None:
            actor = Actor(self._world, Group(name="catalog", shape="head"))
            for number in range(first, len(self._catalog), FILLERS):
                await actor.push("containerd", self._catalog[number])
                await actor.put_manifest(self._catalog[number], self._catalog[number], f"c{number}")
            actor.hang_up()

        async with trio.open_nursery() as nursery:
            for first in range(min(FILLERS, len(self._catalog))):
                nursery.start_soon(some, first)

    async def run(self) -> None:
        """Until all clients are through, or the scenario's seconds have passed."""
        self._begin = trio.current_time()
        with trio.move_on_after(self._scenario.seconds) as scope:
            async with trio.open_nursery() as nursery:
                beating = trio.CancelScope()
                nursery.start_soon(self._beat, beating)
                async with trio.open_nursery() as clients:
                    for group in self._scenario.group:
                        self._start(group, clients)
                beating.cancel()
        if scope.cancelled_caught:
            for kind, group_name, begin in list(self._open.values()):
                why = f"not ended after {self._scenario.seconds:.0f} s"
                self._told(kind, 0, begin, why=why, ok=False, group=group_name)

    def _start(self, group: Group, nursery: trio.Nursery) -> None:
        times = arrival_times(group.arrivals, group.clients, f"{self._scenario.seed} {group.name}")
        for number in range(self._job.process, group.clients, self._scenario.processes):
            nursery.start_soon(self._client, group, number, times[number])

    async def _client(self, group: Group, number: int, after: float) -> None:
        await trio.sleep_until(self._begin + after)
        chance = Random(f"{self._scenario.seed} {self._job.name} {group.name} {number}")
        shapes = weighted(group.mix or {group.shape: 1.0}, chance)
        wanted = popular(len(self._catalog), group.zipf, chance) if self._catalog else iter(())
        actor = Actor(self._world, group)
        until = self._begin + (group.seconds or self._scenario.seconds)
        try:
            for turn in range(MANY if group.seconds else group.each):
                if trio.current_time() >= until:
                    break
                index = number * group.each + turn if not group.seconds else turn * group.clients + number
                await self._operate(actor, group, next(shapes), index, wanted, chance)
        finally:
            actor.hang_up()

    async def _operate(
        self, actor: Actor, group: Group, shape: str, index: int, wanted: Iterator[int], chance: Random
    ) -> None:
        """One operation, told of however it ends."""
        known = next(wanted, 0) if shape in NEED_CATALOG else 0
        pool = self._pools[group.name]
        if shape in NEED_CATALOG:
            body = self._catalog[known]
        else:
            body = Body(f"{self._job.name}/{group.name}/{index}", pool[index % len(pool)])
        cut = group.cut if group.cut is not None and chance.random() < group.cut.share else None
        cut = None if cut is not None and cut.at >= body.size else cut
        begin = trio.current_time()
        self._open[id(actor)] = shape, group.name, begin
        self._world.totals.in_flight += 1
        kind, why, ok = shape, "", True
        try:
            match shape:
                case "pull":
                    await actor.pull(body, cut)
                case "head":
                    await actor.head(body)
                case "manifest":
                    await actor.get_manifest(body, body, f"c{known}")
                case "image":
                    await actor.image(body, f"t{index % 1000}")
                case _:
                    await actor.push(shape, body, cut)
        except Left:
            kind = "cut"
            actor.hang_up()
        except (Refused, OSError) as error:
            why = str(error) or repr(error)
            ok = getattr(error, "status", 0) in group.may_fail
            actor.hang_up()
        finally:
            self._world.totals.in_flight -= 1
        moved = body.size if ok and not why and kind in PUSHES | {"pull", "image"} else 0
        del self._open[id(actor)]
        self._told(kind, moved, begin, why=why, ok=ok, group=group.name)

    def _told(self, kind: str, size: int, begin: float, *, why: str, ok: bool, group: str) -> None:
        totals = self._world.totals
        totals.done += ok
        totals.failed += not ok
        seconds = trio.current_time() - begin
        told = "push" if kind in PUSHES else kind
        self._say(Operation(time.monotonic(), told, size, seconds, ok, why[:300], group))

    async def _beat(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                self._say(beat(self._world))
                await trio.sleep(1 / self._job.beats)


PUSHES = {"docker", "containerd", "podman", "chunked"}


def beat(world: World) -> Beat:
    """The totals, as a value."""
    totals = world.totals
    return Beat(totals.in_flight, totals.sent, totals.received, totals.done, totals.failed)


def say(message: Said) -> None:
    """One line to whoever started this process."""
    sys.stdout.buffer.write(encode(message))
    sys.stdout.buffer.flush()


def main() -> int:
    """Read the job, prepare, wait for the word, do it, say how it ended."""
    job = decode_job(sys.stdin.buffer.readline())
    with Source() as source:
        world = World(job.port, source, Digests(source))
        load = Load(job, world, say)
        world.digests.prepare(load.sizes())
        if job.process == 0:
            trio.run(load.fill)
            world.totals.sent = 0
            say(Filled())
        say(Ready())
        if not sys.stdin.buffer.readline():
            return 1  # whoever started us is gone
        before = os.times()
        trio.run(load.run)
        after = os.times()
    cpu = after.user + after.system - before.user - before.system
    say(Ended(beat(world), cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB))
    return 0


if __name__ == "__main__":
    sys.exit(main())
