"""Quick calls that travel together: with actors in this process, and every word to Ray counted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_tools import GATES, MADE
from ray.exceptions import ActorDiedError

from perdure.actors.batches import LENGTH, MOST, Pace
from perdure.actors.context import Context
from perdure.actors.demands import Demand
from perdure.actors.keeper import Granted, Heard, NotGranted
from perdure.actors.node_actors import NodeActors
from perdure.actors.node_process import NodeProcess
from perdure.actors.time_limits import Timeout
from perdure.actors.work import ToolFailed, Work, WorkerLost
from perdure.definitions.loading import load

HERE = "quick_tools:"


class Remote:
    """What is called as a Ray actor is, in this process; `words` counts the calls by name."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.words: list[str] = []
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.actor, name)

        class Method:
            @staticmethod
            def remote(*given: Any) -> Awaitable[Any]:
                self.words.append(name)
                return asyncio.ensure_future(self._answer(method, given))

        return Method

    async def _answer(self, method: Callable[..., Awaitable[Any]], given: tuple[Any, ...]) -> Any:
        await asyncio.sleep(0)
        if self.lost:
            raise ActorDiedError
        return await method(*given)


class Keeper:
    """A keeper of some actors of one pool, which hears what it is asked for."""

    def __init__(self, place: str, actors: int) -> None:
        self.actors = [Remote(NodeProcess(Demand(place))) for _ in range(actors)]
        self.free: asyncio.Queue[Remote] = asyncio.Queue()
        self.asked: list[tuple[str, int]] = []
        self.held: dict[str, Remote] = {}
        self.spoiled: list[Remote] = []
        for each in self.actors:
            self.free.put_nowait(each)

    async def ask(self, ticket: str, holder: str, demand: Demand, alone: bool, *whose: Any) -> Granted | NotGranted:
        self.asked.append(whose)
        self.held[ticket] = await self.free.get()
        return Granted(self.held[ticket], True)  # type: ignore[arg-type]

    async def release(self, ticket: str, spoiled: bool) -> None:
        if (actor := self.held.pop(ticket, None)) is not None:
            (self.spoiled.append if spoiled else self.free.put_nowait)(actor)

    async def hear(self, holder: str, runs: dict[str, str], more: dict[str, int], losses: int) -> Heard:
        return Heard({}, [], 0, {})

    @property
    def words(self) -> list[str]:
        return [word for actor in self.actors for word in actor.words]


class World:
    """A host whose calls go to the actors of a keeper in this process."""

    def __init__(self, name: str = "quick", actors: int = 1) -> None:
        MADE.clear()
        GATES.clear()
        self.place = f"{HERE}{name}"
        self.keeper = Keeper(self.place, actors)
        self.calls = NodeActors(self._find)

    async def _find(self) -> Any:
        return Remote(self.keeper)

    def call(
        self, arguments: dict[str, Any], execution: str = "e", priority: int = 5, own: dict[str, Any] | None = None
    ) -> "asyncio.Task[Any]":
        plan = load({"name": "x", "nodes": {"a": {"tool": self.place, "run_on": "actor", **(own or {})}}}).plan
        path = f"a[{len(asyncio.all_tasks())}]"
        work = Work(execution, path, plan.node("a"), 1, arguments, plan, self.place, priority=priority)
        return asyncio.ensure_future(self.calls(work))

    async def close(self) -> None:
        await self.calls.close()


async def settled(*calls: "asyncio.Task[Any]") -> list[Any]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*calls, return_exceptions=True)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0)


async def test_a_thousand_quick_calls_take_few_words() -> None:
    world = World(actors=2)
    assert await settled(*(world.call({"n": n}) for n in range(1000))) == [2 * n for n in range(1000)]
    assert len(world.keeper.words) < 100
    assert sorted(MADE) == list(range(1000))
    await world.close()


async def test_errors_are_those_of_their_own_calls() -> None:
    world = World()
    came = await settled(*(world.call({"n": n if n % 3 else -n - 1}) for n in range(60)))
    for n, each in enumerate(came):
        if n % 3:
            assert each == 2 * n
        else:
            assert isinstance(each, ToolFailed)
            assert (each.error.type, each.error.message) == ("ValueError", f"{-n - 1} is below zero")
    await world.close()


async def test_a_call_that_takes_long_holds_back_neither_results_nor_the_calls_behind_it() -> None:
    world = World("gated", actors=2)
    await settled(*(world.call({"n": n}) for n in range(50)))  # they are known to be quick
    calls = [world.call({"n": n, "gate": "g" if n == 3 else ""}) for n in range(100)]
    rest = [each for n, each in enumerate(calls) if n != 3]
    assert await settled(*rest) == [2 * n for n in range(100) if n != 3]
    assert not calls[3].done()
    assert MADE.count(3) == 2
    GATES["g"].set()
    assert await settled(calls[3]) == [6]
    await world.close()


async def test_what_takes_long_is_never_sent_together() -> None:
    world = World("gated")
    first = world.call({"n": 1, "gate": "g"})
    others = [world.call({"n": n}) for n in range(2, 5)]
    await until(lambda: "finish" in world.keeper.words)
    GATES["g"].set()
    await settled(first, *others)
    assert world.keeper.words.count("batch") == 1
    assert world.keeper.words.count("call") == 3
    await world.close()


async def test_a_call_that_nobody_waits_for_any_more_is_stopped_and_its_actor_goes_on() -> None:
    world = World("gated")
    await settled(*(world.call({"n": n}) for n in range(20)))
    calls = [world.call({"n": n, "gate": "never" if n == 1 else ""}) for n in range(8)]
    await until(lambda: MADE.count(1) == 2)
    calls[1].cancel()
    calls[6].cancel()
    came = await settled(*calls)
    assert [each for each in came if not isinstance(each, asyncio.CancelledError)] == [0, 4, 6, 8, 10, 14]
    assert world.keeper.spoiled == []
    await world.close()


async def test_a_timeout_counts_for_its_own_call_only() -> None:
    world = World("gated")
    await settled(*(world.call({"n": n}) for n in range(20)))
    calls = [world.call({"n": n, "gate": "never" if n == 2 else ""}, own={"timeout": "1s"}) for n in range(6)]
    came = await settled(*calls)
    assert isinstance(came[2], Timeout)
    assert [each for n, each in enumerate(came) if n != 2] == [0, 2, 6, 8, 10]
    await world.close()


async def test_all_calls_of_a_batch_are_lost_with_their_process_and_none_of_it_is_used_again() -> None:
    world = World(actors=1)
    await settled(*(world.call({"n": n}) for n in range(20)))
    world.keeper.actors[0].lost = True
    came = await settled(*(world.call({"n": n}) for n in range(1)))
    assert isinstance(came[0], WorkerLost)
    assert world.keeper.spoiled == world.keeper.actors
    await world.close()


async def test_a_call_that_was_lost_before_or_must_give_heartbeats_goes_alone() -> None:
    world = World()
    await settled(*(world.call({"n": n}) for n in range(30)))
    before = len(world.keeper.words)
    await settled(*(world.call({"n": n}, own={"heartbeat": "30s"}) for n in range(30)))
    words = world.keeper.words[before:]
    assert words.count("call") == 30
    await world.close()


async def test_calls_go_by_priority_and_by_turns_and_the_keeper_is_told_whose_they_are() -> None:
    world = World("gated")
    first = world.call({"n": 0, "gate": "g"}, "a")
    await until(lambda: MADE == [0])
    mine = [world.call({"n": n}, "a") for n in range(1, 31)]
    mine.append(world.call({"n": 300}, "a", priority=8))
    other, urgent = world.call({"n": 100}, "b"), world.call({"n": 200}, "c", priority=9)
    await until(lambda: len(world.keeper.asked) > 18)
    GATES["g"].set()
    await settled(first, *mine, other, urgent)
    assert MADE[1:3] == [200, 300]
    assert MADE.index(100) <= 4
    assert ("b", 5) in world.keeper.asked
    assert ("c", 9) in world.keeper.asked
    await world.close()


async def test_an_actor_makes_of_a_batch_what_fits_into_its_time() -> None:
    actor, context = NodeProcess(Demand(f"{HERE}gated")), Context("e", "a", 1, "e/a", None)
    MADE.clear()
    calls: list[Any] = [("1", {"n": 1}, context), ("2", {"n": 2, "gate": "h"}, context), ("3", {"n": 3}, context)]
    came = await actor.batch(calls, LENGTH)
    assert (came.outcomes, came.going_on) == ([(2, None)], "2")
    assert came.seconds >= LENGTH * 0.9
    assert MADE == [1, 2]
    going_on = asyncio.ensure_future(actor.finish("2"))
    await asyncio.sleep(0)
    GATES["h"].set()
    assert await going_on == (4, None)
    result, error = await actor.finish("2")
    assert error is not None
    assert (result, error.type) == (None, "Cancelled")


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1)), max_size=20), st.integers(1, 5000), st.integers(0, 64))
def test_no_batch_is_longer_than_it_may_be_or_leaves_an_actor_without_calls(
    seen: list[tuple[int, float]], waiting: int, actors: int
) -> None:
    pace = Pace()
    assert pace.together(waiting, actors) == 1
    for calls, seconds in seen:
        pace.saw(calls, seconds)
    many = pace.together(waiting, actors)
    assert 1 <= many <= MOST
    assert (many - 1) * max(1, actors) < waiting
    if len({round(seconds / calls, 9) for calls, seconds in seen}) == 1 and many > 1:
        assert many * seen[0][1] / seen[0][0] <= LENGTH + 1e-6


@pytest.mark.parametrize(("seconds", "many"), [(0.0001, 64), (0.001, 30), (0.004, 7), (0.006, 1), (1.0, 1)])
def test_the_quicker_the_calls_the_more_go_together(seconds: float, many: int) -> None:
    pace = Pace()
    pace.saw(1, seconds)
    assert pace.together(1000, 1) == many
