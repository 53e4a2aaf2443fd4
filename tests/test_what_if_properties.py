"""Whatever happened in an execution, an evaluation under the same definition comes to the same end without a call."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_workflows import Choose, favourable, random_plan, unfavourable
from scenario import EXECUTION, NOW, start

from perdure.actors.decisions import decide
from perdure.actors.inputs import FireTimer, Input, ReportLoss, SignalExecution, PauseExecution, ResumeExecution, SkipNode, CompleteNode
from perdure.actors.state import INITIAL, ExecutionState, Started
from perdure.cluster.record import Record
from perdure.cluster.what_if import WhatIf
from perdure.definitions.plan import Plan
from perdure.events.entry import Entry
from perdure.events.vocabulary import ExecutionFailed, ExecutionSucceeded

_MOST = 300


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
        choices = [each for each in favourable(state) if not isinstance(each, FireTimer)]
        choices += [each for each in unfavourable(state) if not isinstance(each, FireTimer | ReportLoss)]
        if self._choose(10) == 0:
            choices.append(SignalExecution(f"s{len(self.entries)}", EXECUTION, "go", len(self.entries)))
        if state.paused:
            choices += [ResumeExecution(f"r{len(self.entries)}", EXECUTION)] * 2
        if state.nodes and self._choose(20) == 0:
            path = sorted(state.nodes)[self._choose(len(state.nodes))]
            by_hand = f"h{len(self.entries)}"
            choices = [
                (SkipNode(by_hand, EXECUTION, path), CompleteNode(by_hand, EXECUTION, path, 1),
                PauseExecution(by_hand, EXECUTION))[self._choose(3)]
            ]
        later = self.now + timedelta(seconds=1 + self._choose(4))
        due, timer = min(((due, timer) for timer, due in state.timers.items()), default=(None, ""))
        if due is not None and (due <= later or not choices):
            self.now = max(self.now, due)
            return FireTimer.of(EXECUTION, timer, due)
        self.now = later
        return choices[self._choose(len(choices))] if choices else None


@settings(deadline=None, max_examples=60)
@given(st.data())
async def test_an_execution_evaluated_as_it_is_comes_to_the_end_that_it_came_to(data: Any) -> None:
    def choose(below: int) -> int:
        drawn: int = data.draw(st.integers(0, below - 1))
        return drawn

    plan = random_plan(choose)
    assume(plan is not None)
    assert plan is not None
    lived = Lived(plan, choose)
    assume(isinstance(lived.started.outcome, ExecutionSucceeded | ExecutionFailed))
    what_if = WhatIf(plan, Record({plan.digest: plan}, lived.entries), None, NOW)
    state = await what_if.run(start(plan, {}))
    assert (state.outcome, what_if.ran) == (lived.started.outcome, [])
