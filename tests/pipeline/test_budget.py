"""The budget never gives more than it has, in turn, and what nobody uses gives its pages back."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioreg.pipeline.budget import PAGE, Block, Budget, ByteGate, Share
from trioreg.pipeline.turns import client


class TestBudget:
    @pytest.mark.parametrize("size", [0, -PAGE, PAGE - 1, PAGE + 1])
    def test_a_block_is_whole_pages(self, size: int) -> None:
        """Other sizes could not be written directly."""
        with pytest.raises(ValueError, match="multiple"):
            Budget(10 * PAGE, size)

    def test_it_holds_at_least_one_block(self) -> None:
        """A smaller budget would never let anyone pass."""
        with pytest.raises(ValueError, match="one block"):
            Budget(PAGE - 1, PAGE)

    async def test_never_more_than_the_total(self) -> None:
        """What does not make a whole block is not given."""
        budget = Budget(3 * PAGE - 1, PAGE)
        held = [await budget.acquire(), await budget.acquire()]
        with trio.move_on_after(0) as turn:
            await budget.acquire()
        assert turn.cancelled_caught
        assert budget.statistics().held == 2
        assert len({id(block) for block in held}) == 2
        assert all(len(block.view) == PAGE for block in held)

    async def test_first_come_first_served(self) -> None:
        """Waiters get a block in the order in which they asked, one each."""
        budget = Budget(PAGE, PAGE)
        order: list[int] = []

        async def wait(number: int) -> None:
            block = await budget.acquire()
            order.append(number)
            await trio.lowlevel.checkpoint()
            budget.release(block)

        first = await budget.acquire()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(wait, number)
                await wait_all_tasks_blocked()
            assert budget.statistics().waiting == 8
            assert order == []
            budget.release(first)
        assert order == list(range(8))

    async def test_clients_have_their_turns(self) -> None:
        """One block of each, however many transfers of a client wait for one."""
        budget = Budget(PAGE, PAGE)
        order: list[str] = []

        async def wait(name: str) -> None:
            client.set(name)
            block = await budget.acquire()
            order.append(name)
            await trio.lowlevel.checkpoint()
            budget.release(block)

        first = await budget.acquire()
        async with trio.open_nursery() as nursery:
            for name in "aaaaaabb":
                nursery.start_soon(wait, name)
                await wait_all_tasks_blocked()
            budget.release(first)
        assert "".join(order) == "abab" + "aaaa"

    async def test_nobody_overtakes_a_waiter(self) -> None:
        """Whoever asks when a block has just come back stands behind those who waited for it."""
        budget = Budget(PAGE, PAGE)
        order: list[str] = []

        async def wait(name: str) -> None:
            budget.release(await budget.acquire())
            order.append(name)

        first = await budget.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "waited")
            await wait_all_tasks_blocked()
            budget.release(first)
            await wait("came late")
        assert order == ["waited", "came late"]

    async def test_a_cancelled_waiter_gives_up_its_place(self) -> None:
        """The next one in the queue gets the block, and none is lost."""
        budget = Budget(PAGE, PAGE)
        first = await budget.acquire()
        got: list[Block] = []

        async def wait() -> None:
            got.append(await budget.acquire())

        async with trio.open_nursery() as nursery:
            doomed = trio.CancelScope()

            async def wait_in_vain() -> None:
                with doomed:
                    await wait()

            nursery.start_soon(wait_in_vain)
            await wait_all_tasks_blocked()
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            # In one step, so that the cancellation meets a block that is on its way.
            doomed.cancel()
            budget.release(first)
        assert doomed.cancelled_caught
        assert got == [first]
        assert budget.statistics().held == 1
        assert budget.statistics().waiting == 0

    async def test_the_last_returned_is_the_next_given(self) -> None:
        """Light load stays on the same warm pages, however large the budget is."""
        budget = Budget(100 * PAGE, PAGE)
        used = set()
        for _ in range(50):
            block = await budget.acquire()
            used.add(id(block))
            budget.release(block)
        assert len(used) == 1

    async def test_a_block_comes_empty(self) -> None:
        """Nothing of the last user's length is left."""
        budget = Budget(PAGE, PAGE)
        block = await budget.acquire()
        block.end = PAGE
        assert block.full
        budget.release(block)
        again = await budget.acquire()
        assert again is block
        assert (again.end, again.full) == (0, False)

    async def test_trim_cools_what_nobody_took_in_between(self) -> None:
        """Blocks that were in use since the last call stay warm; the idle ones lose their pages."""
        budget = Budget(4 * PAGE, PAGE)
        blocks = [await budget.acquire() for _ in range(4)]
        for block in blocks:
            block.view[:3] = b"abc"
            budget.release(block)
        budget.trim()
        assert budget.statistics().warm == 4, "all were in use since the beginning"
        busy = await budget.acquire()
        budget.release(busy)
        budget.trim()
        assert budget.statistics().warm == 1
        assert busy.warm
        assert [bytes(block.view[:3]) for block in blocks] == [b"\0\0\0"] * 3 + [b"abc"]

    async def test_a_cool_block_is_as_good_as_any(self) -> None:
        """It warms up when it is taken, and holds what is put into it."""
        budget = Budget(PAGE, PAGE)
        budget.release(await budget.acquire())
        budget.trim()
        budget.trim()
        assert budget.statistics().warm == 0
        block = await budget.acquire()
        block.view[:] = b"x" * PAGE
        assert budget.statistics().warm == 1
        assert bytes(block.view) == b"x" * PAGE

    async def test_statistics(self) -> None:
        """They say what the settings were and what is in use now."""
        budget = Budget(4 * PAGE, PAGE)
        first = budget.statistics()
        assert (first.block_size, first.total, first.held, first.waiting, first.warm) == (PAGE, 4, 0, 0, 0)
        block = await budget.acquire()
        assert (budget.statistics().held, budget.statistics().warm) == (1, 1)
        budget.release(block)
        assert (budget.statistics().held, budget.statistics().warm) == (0, 1)


class TestByteGate:
    async def hold(self, gate: ByteGate, size: int, inside: list[int], leave: trio.Event) -> None:
        async with gate.hold(size):
            inside.append(size)
            await leave.wait()

    async def test_as_many_as_fit_at_once(self) -> None:
        """What does not fit waits; nothing is ever granted in part."""
        gate, inside, leave = ByteGate(10), list[int](), trio.Event()
        async with trio.open_nursery() as nursery:
            for size in (4, 5, 2):
                nursery.start_soon(self.hold, gate, size, inside, leave)
                await wait_all_tasks_blocked()
            assert inside == [4, 5]
            leave.set()
        assert inside == [4, 5, 2]

    async def test_a_small_one_does_not_overtake_a_large_one(self) -> None:
        """Otherwise a stream of small manifests would keep a large one out for ever."""
        gate, inside = ByteGate(10), list[int]()
        first, rest = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hold, gate, 5, inside, first)
            await wait_all_tasks_blocked()
            nursery.start_soon(self.hold, gate, 8, inside, rest)
            await wait_all_tasks_blocked()
            nursery.start_soon(self.hold, gate, 1, inside, rest)
            await wait_all_tasks_blocked()
            assert inside == [5]
            first.set()
            await wait_all_tasks_blocked()
            assert sorted(inside) == [1, 5, 8]
            rest.set()

    async def test_larger_than_the_total_goes_alone(self) -> None:
        """It is not refused, and nobody is let in beside it."""
        gate, inside = ByteGate(10), list[int]()
        first, large = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hold, gate, 1, inside, first)
            await wait_all_tasks_blocked()
            nursery.start_soon(self.hold, gate, 1000, inside, large)
            await wait_all_tasks_blocked()
            nursery.start_soon(self.hold, gate, 0, inside, large)
            nursery.start_soon(self.hold, gate, 1, inside, large)
            await wait_all_tasks_blocked()
            assert inside == [1]
            first.set()
            await wait_all_tasks_blocked()
            # Who asks for nothing may be let in together with it; which of them runs first is Trio's choice.
            assert sorted(inside[1:]) in ([1000], [0, 1000])
            large.set()
        assert sorted(inside) == [0, 1, 1, 1000]

    async def test_a_cancelled_waiter_lets_the_next_one_in(self) -> None:
        """A large one that gives up was all that kept a small one out."""
        gate, inside, leave = ByteGate(10), list[int](), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hold, gate, 5, inside, leave)
            await wait_all_tasks_blocked()
            doomed = trio.CancelScope()

            async def hold_in_vain() -> None:
                with doomed:
                    await self.hold(gate, 8, inside, leave)

            nursery.start_soon(hold_in_vain)
            await wait_all_tasks_blocked()
            nursery.start_soon(self.hold, gate, 5, inside, leave)
            await wait_all_tasks_blocked()
            assert inside == [5]
            doomed.cancel()
            await wait_all_tasks_blocked()
            assert inside == [5, 5]
            leave.set()

    async def test_cancelled_just_when_it_was_let_in(self) -> None:
        """What it had been granted goes back; otherwise the gate would leak."""
        gate, inside, leave = ByteGate(10), list[int](), trio.Event()
        doomed = trio.CancelScope()

        async def hold_in_vain() -> None:
            with doomed:
                await self.hold(gate, 10, inside, leave)

        async with trio.open_nursery() as nursery:
            async with gate.hold(10):
                nursery.start_soon(hold_in_vain)
                await wait_all_tasks_blocked()
            # Granted on the way out of the block above, and not yet run.
            doomed.cancel()
        assert doomed.cancelled_caught
        with trio.fail_after(5):
            async with gate.hold(10):
                pass

    async def test_an_error_inside_opens_the_gate_again(self) -> None:
        """Whatever happens to the holder."""
        gate = ByteGate(10)
        with pytest.raises(ZeroDivisionError):
            async with gate.hold(10):
                raise ZeroDivisionError
        with trio.fail_after(5):
            async with gate.hold(10):
                pass


class TestShare:
    def test_the_more_the_smaller(self) -> None:
        """Pieces × copies × exchanges stay within the total, as long as a piece has its least size."""
        share = Share(32 * 2**20)
        assert share.piece() == Share.largest
        taken = []
        for count in range(1, 1025):
            taken.append(share.taken())
            taken[-1].__enter__()
            assert share.piece() * Share.copies * count <= 32 * 2**20
        assert share.piece() == 8 * 1024
        for each in taken:
            each.__exit__(None, None, None)
        assert share.piece() == Share.largest

    def test_never_smaller_than_useful(self) -> None:
        """Past that the number of connections is what bounds memory."""
        share = Share(1)
        with share.taken():
            assert share.piece() == Share.smallest

    def test_left_also_by_an_error(self) -> None:
        """Otherwise each failed exchange would make the others slower."""
        share = Share(32 * 2**20)

        def fail() -> None:
            with share.taken():
                raise ZeroDivisionError

        for attempt in [fail] * 1000:
            with pytest.raises(ZeroDivisionError):
                partial(attempt)()
        assert share.piece() == Share.largest
