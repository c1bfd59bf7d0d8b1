"""What every store promises. Each test runs on each store."""

from __future__ import annotations

import asyncio
import os
import tempfile
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker_crypto import storage
from broker_crypto.errors import ForkedState, UsageError
from broker_crypto.limits import STORE_KEY, STORE_KIND
from broker_crypto.storage import StateStore
from broker_crypto.testing import Crashed, FaultyStore, crash_at, fail_at
from tests.support.store_steps import CALLS, STEPS, Content, run, states
from tests.unit.storage.conftest import GivenKey
from tests.unit.storage.rows import KINDS, content, fill


async def test_a_block_sees_its_own_writes_and_later_blocks_see_them_too(store: StateStore) -> None:
    await fill(store, {("group", b"a"): b"1", ("group", b"b"): b"2"})
    async with store.transaction() as tx:
        await tx.put("group", b"a", b"3")
        await tx.delete("group", b"b")
        await tx.put("group", b"c", b"")
        assert await tx.get("group", b"a") == b"3"
        assert await tx.get("group", b"b") is None
        assert await tx.scan("group") == [(b"a", b"3"), (b"c", b"")]
        await tx.put("group", b"b", b"4")
        assert await tx.get("group", b"b") == b"4"
        await tx.delete("group", b"b")
    assert await content(store) == {("group", b"a"): b"3", ("group", b"c"): b""}


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
async def test_a_block_that_ends_in_an_exception_leaves_nothing(store: StateStore, error: type[BaseException]) -> None:
    before: Content = {("group", b"a"): b"1", ("epoch", b"x"): b"2"}
    await fill(store, before)

    async def block() -> None:
        async with store.transaction() as tx:
            await tx.put("group", b"a", b"changed")
            await tx.delete("epoch", b"x")
            await tx.put("staged", b"new", b"row")
            raise error

    with pytest.raises(error):
        await block()
    assert await content(store) == before


async def test_scan_gives_the_rows_of_one_kind_under_a_prefix_in_key_order(store: StateStore) -> None:
    keys = [b"", b"\x00", b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"ab", b"b", b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\x01"]
    await fill(store, {(kind, key): kind.encode() + key for kind in ("group", "epoch") for key in keys})
    for prefix in (*keys, b"c", b"\xff\xfe"):
        for pending in (False, True):
            async with store.transaction() as tx:
                if pending:
                    await tx.put("group", prefix + b"new", b"n")
                    await tx.delete("group", b"a\xff")
                held = {*keys, prefix + b"new"} - {b"a\xff"} if pending else set(keys)
                found = await tx.scan("group", prefix)
                assert [key for key, _ in found] == sorted(key for key in held if key.startswith(prefix))
                if pending:
                    await tx.put("group", b"a\xff", b"groupa\xff")
                    await tx.delete("group", prefix + b"new")


async def test_kinds_do_not_see_each_other(store: StateStore) -> None:
    await fill(store, {("group", b"k"): b"1"})
    async with store.transaction() as tx:
        assert await tx.get("groups", b"k") is None
        assert await tx.get("grou", b"pk") is None
        assert await tx.scan("epoch") == []
        await tx.delete("epoch", b"k")
    assert await content(store) == {("group", b"k"): b"1"}


@pytest.mark.parametrize("kind", ["", "Group", "gro up", "x" * (STORE_KIND + 1), "grüppe", "a'b", b"group", None])
async def test_a_kind_that_is_no_word_is_refused_and_nothing_changes(store: StateStore, kind: str) -> None:
    calls: list[Callable[[storage.Transaction], Awaitable[object]]] = [
        lambda tx: tx.get(kind, b"k"),
        lambda tx: tx.put(kind, b"k", b"v"),
        lambda tx: tx.delete(kind, b"k"),
        lambda tx: tx.scan(kind),
    ]
    async with store.transaction() as tx:
        for call in calls:
            with pytest.raises(UsageError):
                await call(tx)
        await tx.put("group", b"k", b"v")
    assert await content(store) == {("group", b"k"): b"v"}


@pytest.mark.parametrize("key", [bytes(STORE_KEY + 1), "text", None, bytearray(b"k")])
async def test_a_key_that_is_too_long_or_no_bytes_is_refused(store: StateStore, key: bytes) -> None:
    async with store.transaction() as tx:
        for call in (tx.get("group", key), tx.put("group", key, b""), tx.delete("group", key), tx.scan("group", key)):
            with pytest.raises(UsageError):
                await call
        await tx.put("group", bytes(STORE_KEY), b"longest")
    assert await content(store) == {("group", bytes(STORE_KEY)): b"longest"}


@pytest.mark.parametrize("value", ["text", None, bytearray(b"v"), 7])
async def test_a_value_that_is_no_bytes_is_refused(store: StateStore, value: bytes) -> None:
    async with store.transaction() as tx:
        with pytest.raises(UsageError):
            await tx.put("group", b"k", value)
    assert await content(store) == {}


async def test_a_transaction_is_refused_after_its_block(store: StateStore) -> None:
    async with store.transaction() as kept:
        await kept.put("group", b"k", b"v")
    with pytest.raises(ValueError):
        async with store.transaction() as failed:
            raise ValueError
    for tx in (kept, failed):
        for call in (tx.get("group", b"k"), tx.put("group", b"k", b"x"), tx.delete("group", b"k"), tx.scan("group")):
            with pytest.raises(UsageError):
                await call
    assert await content(store) == {("group", b"k"): b"v"}


async def test_blocks_take_turns_so_that_no_update_is_lost(store: StateStore) -> None:
    async def add() -> None:
        for _ in range(10):
            async with store.transaction() as tx:
                number = int(await tx.get("group", b"n") or b"0")
                await asyncio.sleep(0)
                await tx.put("group", b"n", b"%d" % (number + 1))

    await asyncio.gather(*(add() for _ in range(10)))
    assert await content(store) == {("group", b"n"): b"100"}


async def test_a_block_inside_a_block_is_refused_and_the_outer_one_goes_on(store: StateStore) -> None:
    async with store.transaction() as tx:
        await tx.put("group", b"k", b"v")
        with pytest.raises(UsageError):
            async with store.transaction():
                pass
        with pytest.raises(UsageError):
            await store.close()
    assert await content(store) == {("group", b"k"): b"v"}


async def test_a_task_cancelled_at_any_await_of_its_block_leaves_nothing(store: StateStore) -> None:
    before: Content = {("group", b"a"): b"1"}
    await fill(store, before)

    async def block(stop: int, reached: asyncio.Event) -> None:
        async with store.transaction() as tx:
            for step in range(5):
                await tx.put("group", b"%d" % step, b"new")
                await tx.get("group", b"a")
                if step == stop:
                    reached.set()
                    await asyncio.sleep(60)
            await tx.delete("group", b"a")

    for stop in range(5):
        reached = asyncio.Event()
        task = asyncio.create_task(block(stop, reached))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await content(store) == before


async def test_a_task_cancelled_after_any_number_of_turns_of_the_loop_leaves_all_or_nothing(store: StateStore) -> None:
    adopted = b"0"

    async def block(value: bytes) -> None:
        nonlocal adopted
        async with store.transaction() as tx:
            await tx.put("group", b"a", value)
            await tx.get("epoch", b"none")
            await tx.put("group", b"b", value)
        adopted = value  # no await between the commit and this: memory follows the store
        await asyncio.sleep(60)

    await fill(store, {("group", b"a"): b"0", ("group", b"b"): b"0"})
    outcomes = set()
    for turns in range(40):
        task = asyncio.create_task(block(b"%d" % (turns + 1)))
        for _ in range(turns):
            await asyncio.sleep(0 if turns % 2 else 0.0001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await content(store) == {("group", b"a"): adopted, ("group", b"b"): adopted}
        outcomes.add(adopted == b"%d" % (turns + 1))
    assert outcomes == {False, True}


async def test_a_task_cancelled_while_it_waits_for_its_turn_leaves_nothing_and_takes_nobodys_turn(store: StateStore) -> None:
    async def write(key: bytes) -> None:
        async with store.transaction() as tx:
            await tx.put("group", key, b"v")

    async with store.transaction() as tx:
        waiting = [asyncio.create_task(write(b"%d" % n)) for n in range(3)]
        await asyncio.sleep(0.01)
        waiting[1].cancel()
        await tx.put("group", b"first", b"v")
    await asyncio.gather(*waiting, return_exceptions=True)
    assert set(await content(store)) == {("group", b"first"), ("group", b"0"), ("group", b"2")}


async def test_a_time_out_around_a_block_is_a_time_out_whenever_it_strikes(store: StateStore) -> None:
    async def work(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while True:
                async with store.transaction() as tx:
                    await tx.put("group", b"n", b"%f" % seconds)

    for n in range(30):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(n / 20000), 30)


async def test_closing_waits_for_the_block_under_way_and_refuses_everything_after(store: StateStore) -> None:
    inside = asyncio.Event()
    ended = False

    async def block() -> None:
        nonlocal ended
        async with store.transaction() as tx:
            inside.set()
            await asyncio.sleep(0.01)
            await tx.put("group", b"k", b"v")
        ended = True

    task = asyncio.create_task(block())
    await inside.wait()
    await store.close()
    await task
    assert ended
    await store.close()
    for call in (store.erased, store.changed_by_others):
        with pytest.raises(UsageError):
            await call()
    with pytest.raises(UsageError):
        async with store.transaction():
            pass


async def test_erased_returns_and_its_own_writes_are_no_change_by_others(store: StateStore) -> None:
    await fill(store, {("group", b"k"): b"v"})
    async with store.transaction() as tx:
        await tx.delete("group", b"k")
    await store.erased()
    await store.erased()
    assert not await store.changed_by_others()


async def test_a_forked_child_is_refused_and_its_parent_goes_on(store: StateStore) -> None:
    await fill(store, {("group", b"k"): b"v"})
    async with store.transaction() as tx:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of what is tested here
            child = os.fork()
        if not child:
            refused = 0
            for call in (tx.get("group", b"k"), tx.put("group", b"k", b"x"), store.erased(), store.changed_by_others()):
                try:
                    call.send(None)
                except ForkedState:
                    refused += 1
                except BaseException:
                    pass
            os._exit(40 + refused)
        status = os.waitpid(child, 0)[1]
        assert os.waitstatus_to_exitcode(status) == 44
        await tx.put("group", b"after", b"v")
    assert await content(store) == {("group", b"k"): b"v", ("group", b"after"): b"v"}


async def test_no_value_and_no_key_shows_in_a_repr(store: StateStore) -> None:
    async with store.transaction() as tx:
        await tx.put("group", b"the place", b"the secret")
        shown = repr(tx) + repr(store)
    for word in ("the secret", "the place", GivenKey().key().hex()[:8], repr(GivenKey().key()[5:9])[2:-1]):
        assert word not in shown


# --- the n-th call fails ------------------------------------------------------------------------------------------

async def test_the_calls_of_the_steps_are_all_counted(store: StateStore) -> None:
    faulty = FaultyStore(store, fail_at(CALLS + 1))
    assert await run(faulty) == len(STEPS)
    assert len(faulty.calls) == CALLS
    assert await content(store) == states()[-1]


@pytest.mark.parametrize("n", range(1, CALLS + 1))
async def test_when_the_nth_call_fails_what_ended_well_is_there_and_nothing_else(store: StateStore, n: int) -> None:
    done = await run(FaultyStore(store, fail_at(n)))
    assert done < len(STEPS)
    assert await content(store) == states()[done]
    await fill(store, {("group", b"goes on"): b"v"})


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("n", range(1, CALLS + 1))
async def test_a_crash_around_the_nth_call_leaves_whole_steps(store: StateStore, n: int, moment: str) -> None:
    faulty = FaultyStore(store, crash_at(n, moment))  # type: ignore[arg-type]
    done = await run(faulty)
    committed = done + (faulty.calls[-1] == "commit" and moment == "after")
    assert await content(store) == states()[committed]
    with pytest.raises(Crashed):
        await faulty.erased()


# --- any sequence, against a dict ---------------------------------------------------------------------------------

kinds = st.sampled_from(KINDS)
row_keys = st.sampled_from([b"", b"a", b"aa", b"ab", b"b", b"\xff", b"\xff\xff"])
values = st.binary(max_size=40) | st.builds(bytes, st.integers(3000, 20000))
write = st.tuples(st.just("put"), kinds, row_keys, values) | st.tuples(st.just("delete"), kinds, row_keys, st.just(b""))


class Model(RuleBasedStateMachine):
    """Transactions that end well or not, alone or several at once, and reopening, against a dict."""

    where = "memory:"

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.model: Content = {}
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.loop.run_until_complete(self.opened())

    async def opened(self) -> StateStore:
        where = self.where or Path(self.folder.name) / "state" / "agent.db"
        return storage.open(where, GivenKey())

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.store.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()

    async def apply(self, writes: list[tuple[str, str, bytes, bytes]], *, fail: bool) -> None:
        async with self.store.transaction() as tx:
            inside = dict(self.model)
            for name, kind, key, value in writes:
                if name == "put":
                    await tx.put(kind, key, value)
                    inside[kind, key] = value
                else:
                    await tx.delete(kind, key)
                    inside.pop((kind, key), None)
                assert await tx.get(kind, key) == inside.get((kind, key))
                assert await tx.scan(kind) == sorted((k, v) for (of, k), v in inside.items() if of == kind)
            if fail:
                raise ValueError
            self.model = inside  # blocks take turns: the next one sees this one's rows

    @rule(writes=st.lists(write, max_size=6), fail=st.booleans())
    def transact(self, writes: list[tuple[str, str, bytes, bytes]], fail: bool) -> None:
        try:
            self.loop.run_until_complete(self.apply(writes, fail=fail))
        except ValueError:
            assert fail

    @rule(several=st.lists(st.tuples(st.lists(write, max_size=4), st.booleans()), min_size=2, max_size=5))
    def transact_at_once(self, several: list[tuple[list[tuple[str, str, bytes, bytes]], bool]]) -> None:
        async def all_of_them() -> list[object]:
            tasks = (self.apply(writes, fail=fail) for writes, fail in several)
            return list(await asyncio.gather(*tasks, return_exceptions=True))

        outcomes = self.loop.run_until_complete(all_of_them())
        assert [isinstance(outcome, ValueError) for outcome in outcomes] == [fail for _, fail in several]

    @rule()
    def erase(self) -> None:
        self.loop.run_until_complete(self.store.erased())

    @rule()
    def reopen(self) -> None:
        if not self.store.ephemeral:
            self.loop.run_until_complete(self.store.close())
            self.store = self.loop.run_until_complete(self.opened())

    @invariant()
    def the_store_holds_what_the_dict_holds(self) -> None:
        if hasattr(self, "store"):
            assert self.loop.run_until_complete(content(self.store)) == self.model


class SqliteModel(Model):
    where = ""


TestMemoryAgainstADict = Model.TestCase
TestMemoryAgainstADict.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestSqliteAgainstADict = SqliteModel.TestCase
TestSqliteAgainstADict.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
