"""The load client: `python -m perf.client`, a process of its own with constant memory.

Reads one `Plan` (a line of JSON) from standard input, prepares the digests it will need, runs the
groups, and writes `Message` lines to standard output: progress twice a second, the outcome last.
The rule: every operation of the plan is accounted for, done or failed, also those that time cut.
"""

import os
import resource
import sys
import time

import trio

from perf.bodies import Digests, Source
from perf.operations import Client, Running, Shared, sizes_of
from perf.plan import KIB, Ended, Message, Plan, Progress, decode_plan, encode
from perf.wire import Refused

PROGRESS_SECONDS = 0.5
OPENING_AT_ONCE = 64  # of a thousand clients, so that the listener's backlog is not what we measure


class Load:
    """The groups of one plan, and who waits for whom."""

    def __init__(self, plan: Plan, source: Source, digests: Digests) -> None:
        self.plan = plan
        opening = trio.CapacityLimiter(OPENING_AT_ONCE)
        self.shared = Shared(plan.host, plan.port, source, digests, opening)
        self.groups = {group.name: Running(group) for group in plan.groups}

    async def run(self) -> None:
        """Until every group is through or the plan's seconds have passed."""
        with trio.move_on_after(self.plan.seconds):
            async with trio.open_nursery() as nursery:
                reporter = trio.CancelScope()
                nursery.start_soon(self._report, reporter)
                async with trio.open_nursery() as groups:
                    for running in self.groups.values():
                        groups.start_soon(self._run_group, running)
                reporter.cancel()

    async def _run_group(self, running: Running) -> None:
        group, tally = running.group, running.tally
        for name in group.after:
            await self.groups[name].all_moving.wait()
        begin = time.perf_counter()
        try:
            async with trio.open_nursery() as nursery:
                if group.until:
                    nursery.start_soon(self._lift, running)
                for number in range(group.clients):
                    nursery.start_soon(self._run_client, running, number)
        finally:
            tally.seconds = time.perf_counter() - begin
            missing = group.clients * group.each - tally.done - tally.failed
            if missing:
                running.failed(f"{missing} operations not ended after {self.plan.seconds:.0f} s")
                tally.failed += missing - 1
            running.over.set()

    async def _lift(self, running: Running) -> None:
        await self.groups[running.group.until].over.wait()
        running.lift()

    async def _run_client(self, running: Running, number: int) -> None:
        group = running.group
        client = Client(self.shared, running, number)
        try:
            for turn in range(group.each):
                try:
                    await client.operate(number * group.each + turn)
                    running.tally.done += 1
                except (Refused, OSError) as error:
                    running.failed(str(error))
                    client.hang_up()
        finally:
            running.moves(number)
            client.hang_up()

    async def _report(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep(PROGRESS_SECONDS)
                tallies = [running.tally for running in self.groups.values()]
                say(
                    Message(
                        progress=Progress(
                            sum(tally.bytes for tally in tallies),
                            sum(tally.done for tally in tallies),
                            sum(tally.failed for tally in tallies),
                        )
                    )
                )


def say(message: Message) -> None:
    """One line to whoever started this process."""
    sys.stdout.buffer.write(encode(message))
    sys.stdout.buffer.flush()


def main() -> int:
    """Read the plan, prepare, run it, say how it ended."""
    plan = decode_plan(sys.stdin.buffer.readline())
    with Source() as source:
        digests = Digests(source)
        begin = time.perf_counter()
        for group in plan.groups:
            digests.prepare(sizes_of(group))
        prepared = time.perf_counter() - begin
        before = os.times()
        load = Load(plan, source, digests)
        trio.run(load.run)
        after = os.times()
    say(
        Message(
            ended=Ended(
                groups=[running.tally for running in load.groups.values()],
                prepare_seconds=prepared,
                cpu_seconds=after.user + after.system - before.user - before.system,
                peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB,
            )
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
