"""Whatever happened in an execution: evaluated as it is, it comes to the same end, and no call is made."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import Choose, favourable, random_plan, unfavourable
from scenario import EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.inputs import (
    CompleteNode,
    FireTimer,
    Input,
    PauseExecution,
    ReportLoss,
    ResumeExecution,
    SignalExecution,
    SkipNode,
)
from perdure.actors.state import INITIAL, ExecutionState, Started
from perdure.cluster.record import Record
from perdure.cluster.what_if import WhatIf
from perdure.definitions.plan import Plan
from perdure.events.entry import Entry
from perdure.events.vocabulary import ExecutionFailed, ExecutionSucceeded

_MOST = 100


class Lived:
    """An execution that lives through time: timers fire when they are due, everything else happens between them."""

    def __init__(self, plan: Plan, choose: Choose) -> None:
        self.plan = plan
        self.now: datetime = NOW
        self.entries: list[Entry] = []
        self.state: ExecutionState = INITIAL
        self._choose = choose
        self._tell(start(plan, {}))
        for _ in range(_MOST):
            given_ = self._next()
            if given_ is None:
                break
            self._tell(given_)

    @property
    def started(self) -> Started:
        assert isinstance(self.state, Started)
        return self.state

    def _tell(self, given_: Input) -> None:
        events, self.state = decide(self.plan, EXECUTION, self.state, given_, self.now)
        if events:
            number = len(self.entries) + 1
            self.entries.append(Entry(f"e{number}", number, "", self.now, events))

    def _next(self) -> Input | None:
        state = self.started
        if state.outcome is not None:
            return None
        choices = [*favourable(state), *unfavourable(state), *self._by_people(state)]
        choices = [each for each in choices if not isinstance(each, FireTimer | ReportLoss)]
        later = self.now + timedelta(seconds=1 + self._choose(200))
        due, timer = min(((due, timer) for timer, due in state.timers.items()), default=(None, ""))
        if due is not None and (due <= later or not choices):
            self.now = max(self.now, due)
            return FireTimer.of(EXECUTION, timer, due)
        self.now = later
        return choices[self._choose(len(choices))] if choices else None

    def _by_people(self, state: Started) -> list[Input]:
        """Return what somebody may do now: a resume always, anything else now and then."""
        name = f"c{len(self.entries)}"
        told: list[Input] = [ResumeExecution(name, EXECUTION)] if state.paused else []
        if state.nodes and self._choose(6) == 0:
            path = sorted(state.nodes)[self._choose(len(state.nodes))]
            told += [SignalExecution(name, EXECUTION, "go", name), PauseExecution(name, EXECUTION)]
            told += [SkipNode(name, EXECUTION, path), CompleteNode(name, EXECUTION, path, 1)]
        return told


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False))
async def test_an_execution_evaluated_as_it_is_comes_to_the_end_that_it_came_to_without_a_call(random: Any) -> None:
    plan = random_plan(random.randrange)
    assume(plan is not None)
    assert plan is not None
    lived = Lived(plan, random.randrange)
    assume(isinstance(lived.started.outcome, ExecutionSucceeded | ExecutionFailed))
    record = Record({plan.digest: plan}, lived.entries)
    for digest in (plan.digest, "changed where nothing of it matters"):  # the first may not make calls, the other might
        what_if = WhatIf(replace(plan, digest=digest), record, None, NOW)
        state = await what_if.run(start(plan, {}))
        assert (state.outcome, what_if.ran) == (lived.started.outcome, [])
