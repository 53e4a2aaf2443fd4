"""Whatever happens to a random workflow, its rows say what its state says, at any moment and in any portions."""

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest
from histories import append
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engine_properties import play

from perdure.actors.evolve import fold
from perdure.actors.state import Started
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import BranchTaken, SignalTaken
from perdure.projections import inboxes
from perdure.projections.queries import Query, page
from perdure.projections.runner import Projections

AT = ("running", "waiting", "open", "retrying", "stuck")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties") / "p.sqlite"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.floats(0.05, 1), portion=st.sampled_from([1, 3, 1000]))
def test_the_rows_of_an_execution_say_what_its_state_says(file: Path, seed: int, cut: float, portion: int) -> None:
    watcher = play(random.Random(seed).randrange)
    if watcher is None:
        return
    events = watcher.events[: max(1, int(len(watcher.events) * cut))]
    while isinstance(events[-1], BranchTaken | SignalTaken):  # no entry ends there
        events = watcher.events[: len(events) + 1]
    state = fold(events)
    assert isinstance(state, Started)

    async def check() -> None:
        log, projections, chance = MemoryLog(), Projections(file, batch=portion), random.Random(seed)
        left = list(events)
        while left:
            size = chance.randint(1, 5)
            await append(log, "x", *left[:size], second=len(events) - len(left), n=await log.last() + 1)
            left = left[size:]
        await projections.catch_up(log)
        assert await projections.quarantined(log) == []
        (row,) = await projections.read(partial(page, query=Query()))
        assert row["status"] == state.status
        ended = state.outcome is not None
        expected = [] if ended else sorted(path for path, node in state.nodes.items() if node.status in AT)
        assert row["current"] == expected[:100]
        asked = await projections.read(inboxes.open_approvals)
        waiting = {path for path, node in state.waiting.items() if "approval" in node.input}
        assert {each["node"] for each in asked} == (set() if ended else waiting)
        spans = await projections.read(partial(inboxes.timeline, execution="x"))
        still = {each["path"] for each in spans if each["ended_at"] is None and each["kind"] in ("attempt", "wait")}
        assert still == (set() if ended else {*state.running, *(path for path in waiting)} | _others(state))
        projections.close()

    asyncio.run(check())


def _others(state: Started) -> set[str]:
    """Return what waits for something other than a person, or a child."""
    return {path for path, node in state.waiting.items() if "child" not in node.input}
