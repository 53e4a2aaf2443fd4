"""What follows from each input: the pure core, as given(events).when(input).then(events)."""

from datetime import timedelta

from scenario import NOW, Given, plan_of, start, started

from perdure.actors.inputs import FireTimer, Recover, ReportFailure, ReportLoss, ReportQueued, ReportSuccess
from perdure.events.vocabulary import (
    CommandRefused,
    Error,
    Event,
    ExecutionFailed,
    ExecutionStarted,
    ExecutionSucceeded,
    NodeAttemptFailed,
    NodeCancelled,
    NodeFailed,
    NodePlaced,
    NodeQueued,
    NodeResumed,
    NodeScheduled,
    NodeSkipped,
    NodeSucceeded,
    TimerArmed,
    TimerCancelled,
    TimerFired,
)

CHAIN = plan_of({"a": {"tool": "t"}, "b": {"tool": "t", "with": {"x": "${{ nodes.a.output }}"}}})
DIAMOND = plan_of(
    {
        "top": {"tool": "t"},
        "left": {"tool": "t", "needs": ["top"]},
        "right": {"tool": "t", "needs": ["top"]},
        "join": {"tool": "t", "needs": ["left", "right"]},
    }
)
RETRYING = plan_of({"a": {"tool": "t", "retry": {"attempts": 3, "delay": 10, "backoff": 2, "jitter": False}}})
BOOM = Error("Boom", "it broke")


def test_a_start_schedules_every_node_that_needs_nothing() -> None:
    plan = plan_of({"a": {"tool": "t", "with": {"n": "${{ input.n + 1 }}"}}, "b": {"tool": "t"}})
    Given(plan).when(start(plan, {"n": 1})).then(
        started(plan, {"n": 1}), NodeScheduled("a", 1, {"n": 2}), NodeScheduled("b", 1, {})
    )


def test_a_second_start_of_the_same_changes_nothing() -> None:
    Given(CHAIN, started(CHAIN, 1)).when(start(CHAIN, 1, command="start-2")).then_nothing()


def test_a_start_with_another_input_is_refused_and_the_refusal_recorded() -> None:
    Given(CHAIN, started(CHAIN, 1)).when(start(CHAIN, 2, command="start-2")).then(
        CommandRefused("start-2", "the execution id is taken by another definition or input")
    )


def test_a_finished_node_schedules_its_dependant_with_its_output() -> None:
    Given(CHAIN, started(CHAIN), NodeScheduled("a", 1, {})).when(ReportSuccess("a", 1, "A")).then(
        NodeSucceeded("a", 1, "A"), NodeScheduled("b", 1, {"x": "A"})
    )


def test_a_join_waits_for_its_last_need() -> None:
    running = (started(DIAMOND), NodeSucceeded("top", 1), NodeScheduled("left", 1), NodeScheduled("right", 1))
    Given(DIAMOND, *running).when(ReportSuccess("right", 1)).then(NodeSucceeded("right", 1))
    Given(DIAMOND, *running).when(ReportSuccess("right", 1), ReportSuccess("left", 1)).then(
        NodeSucceeded("right", 1), NodeSucceeded("left", 1), NodeScheduled("join", 1, {})
    )


def test_the_last_node_ends_the_execution_with_the_outputs_of_the_leaves() -> None:
    Given(CHAIN, started(CHAIN), NodeSucceeded("a", 1), NodeScheduled("b", 1)).when(ReportSuccess("b", 1, 7)).then(
        NodeSucceeded("b", 1, 7), ExecutionSucceeded({"b": 7})
    )


def test_a_chain_of_set_nodes_is_one_decision() -> None:
    plan = plan_of(
        {"a": {"set": 1}, "b": {"set": "${{ nodes.a.output + 1 }}"}, "c": {"set": "${{ nodes.b.output + 1 }}"}},
        output="${{ nodes.c.output }}",
    )
    Given(plan).when(start(plan)).then(
        started(plan),
        NodeSucceeded("a", 1, 1),
        NodeSucceeded("b", 1, 2),
        NodeSucceeded("c", 1, 3),
        ExecutionSucceeded(3),
    )


def test_a_long_chain_of_set_nodes_needs_no_deep_stack() -> None:
    nodes = {"n0": {"set": 0}} | {f"n{i}": {"set": f"${{{{ nodes.n{i - 1}.output + 1 }}}}"} for i in range(1, 3000)}
    plan = plan_of(nodes, output="${{ nodes.n2999.output }}")
    assert Given(plan).when(start(plan)).events[-1] == ExecutionSucceeded(2999)


def test_a_false_condition_skips_the_node_and_what_needs_only_it() -> None:
    plan = plan_of(
        {
            "a": {"tool": "t", "if": "input.go"},
            "b": {"tool": "t", "needs": ["a"]},
            "c": {"set": "${{ nodes.a.output }}", "needs": ["d"]},
            "d": {"set": 1},
        }
    )
    Given(plan).when(start(plan, {"go": False})).then(
        started(plan, {"go": False}),
        NodeSkipped("a", "its condition is false"),
        NodeSucceeded("d", 1, 1),
        NodeSkipped("b", "everything it needs was skipped"),
        NodeSucceeded("c", 1, None),
        ExecutionSucceeded({"b": None, "c": None}),
    )


def test_a_condition_that_is_no_boolean_fails_the_node() -> None:
    plan = plan_of({"a": {"set": 1, "if": "input.n"}})
    given = Given(plan).when(start(plan, {"n": 3}))
    given.then_types(ExecutionStarted, NodeFailed, ExecutionFailed)
    assert given.now.outcome is not None
    assert "gives true or false" in str(given.now.outcome)


def test_an_expression_that_fails_fails_its_node_and_names_what_exists() -> None:
    plan = plan_of({"a": {"tool": "t", "with": {"x": "${{ input.nam }}"}}})
    given = Given(plan).when(start(plan, {"name": "Ann"}))
    error = Error("ExpressionError", "in 'input.nam': input has no 'nam'; it has name; did you mean 'name'?")
    given.then(started(plan, {"name": "Ann"}), NodeFailed("a", 1, error), ExecutionFailed(error, "a", 1))


def test_now_is_the_time_of_the_decision_and_an_id_belongs_to_its_node() -> None:
    parts = {"at": "${{ now() }}", "id": "${{ uuid() }}"}
    plan = plan_of({"a": {"tool": "t", "with": parts}, "b": {"tool": "t", "with": parts}})
    first, second = (
        Given(plan).when(start(plan)).now.nodes["a"].input,
        Given(plan).when(start(plan)).now.nodes["b"].input,
    )
    assert first["at"] == second["at"] == "2026-01-01T12:00:00Z"
    assert first["id"] != second["id"]
    Given(plan).when(start(plan)).then(started(plan), NodeScheduled("a", 1, first), NodeScheduled("b", 1, second))


def test_an_output_that_fails_fails_the_execution() -> None:
    plan = plan_of({"a": {"set": 1}}, output="${{ nodes.a.output + input.x }}")
    given = Given(plan).when(start(plan))
    given.then_types(ExecutionStarted, NodeSucceeded, ExecutionFailed)


def test_a_failure_without_retry_stops_the_others_and_ends_the_execution() -> None:
    running = (started(DIAMOND), NodeSucceeded("top", 1), NodeScheduled("left", 1), NodeScheduled("right", 1))
    Given(DIAMOND, *running).when(ReportFailure("left", 1, BOOM)).then(
        NodeFailed("left", 1, BOOM), NodeCancelled("right", "node 'left' failed"), ExecutionFailed(BOOM, "left", 1)
    )


def test_a_failed_attempt_arms_a_timer_for_the_next() -> None:
    Given(RETRYING, started(RETRYING), NodeScheduled("a", 1, {"k": 1})).when(ReportFailure("a", 1, BOOM)).then(
        NodeAttemptFailed("a", 1, BOOM), TimerArmed("retry/a", NOW + timedelta(seconds=10))
    )


def test_the_delay_grows_by_the_backoff_and_stops_at_the_cap() -> None:
    plan = plan_of(
        {"a": {"tool": "t", "retry": {"attempts": 9, "delay": 10, "backoff": 3, "cap": 60, "jitter": False}}}
    )
    delays = []
    for attempt in (1, 2, 3):
        given = Given(plan, started(plan), NodeScheduled("a", attempt)).when(ReportFailure("a", attempt, BOOM))
        armed = given.events[-1]
        assert isinstance(armed, TimerArmed)
        delays.append((armed.due - NOW).total_seconds())
    assert delays == [10, 30, 60]


def test_jitter_spreads_the_delay_over_its_upper_half_and_is_the_same_every_time() -> None:
    plan = plan_of({name: {"tool": "t", "retry": {"delay": 10}} for name in "abcdefgh"})
    dues = []
    for name in plan.main.nodes:
        first, again = (
            Given(plan, started(plan), NodeScheduled(name, 1)).when(ReportFailure(name, 1, BOOM)) for _ in range(2)
        )
        assert first.events == again.events
        armed = first.events[-1]
        assert isinstance(armed, TimerArmed)
        dues.append((armed.due - NOW).total_seconds())
    assert all(5 <= due <= 10 for due in dues)
    assert len(set(dues)) == len(dues)


def test_the_timer_schedules_the_next_attempt_with_the_same_input() -> None:
    waiting = (
        started(RETRYING),
        NodeScheduled("a", 1, {"k": 1}),
        NodeAttemptFailed("a", 1, BOOM),
        TimerArmed("retry/a", NOW),
    )
    Given(RETRYING, *waiting).when(FireTimer("t-1", "x-1", "retry/a", NOW)).then(
        TimerFired("retry/a"), NodeScheduled("a", 2, {"k": 1})
    )


def test_a_timer_that_fires_twice_counts_once() -> None:
    waiting = (started(RETRYING), NodeScheduled("a", 1), NodeAttemptFailed("a", 1, BOOM), TimerArmed("retry/a", NOW))
    fire = FireTimer("t-1", "x-1", "retry/a", NOW)
    Given(RETRYING, *waiting).when(fire, fire).then(TimerFired("retry/a"), NodeScheduled("a", 2))


def test_a_timer_of_an_earlier_arming_counts_for_nothing() -> None:
    later = NOW + timedelta(seconds=9)
    waiting = (started(RETRYING), NodeScheduled("a", 2), NodeAttemptFailed("a", 2, BOOM), TimerArmed("retry/a", later))
    Given(RETRYING, *waiting).when(FireTimer("t-1", "x-1", "retry/a", NOW)).then_nothing()


def test_a_delay_that_is_too_large_to_compute_is_the_cap() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"attempts": 1000, "backoff": 10, "cap": 60, "jitter": False}}})
    Given(plan, started(plan), NodeScheduled("a", 900)).when(ReportFailure("a", 900, BOOM)).then(
        NodeAttemptFailed("a", 900, BOOM), TimerArmed("retry/a", NOW + timedelta(seconds=60))
    )


def test_spent_retries_fail_the_node_at_its_last_attempt() -> None:
    Given(RETRYING, started(RETRYING), NodeScheduled("a", 3)).when(ReportFailure("a", 3, BOOM)).then(
        NodeFailed("a", 3, BOOM), ExecutionFailed(BOOM, "a", 3)
    )


def test_an_error_that_retry_does_not_name_is_not_retried() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"on": ["RateLimited"]}}})
    Given(plan, started(plan), NodeScheduled("a", 1)).when(ReportFailure("a", 1, BOOM)).then(
        NodeFailed("a", 1, BOOM), ExecutionFailed(BOOM, "a", 1)
    )


def test_a_failure_disarms_the_timers_of_the_others() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {}}, "b": {"tool": "t"}})
    waiting = (
        started(plan),
        NodeScheduled("a", 1),
        NodeScheduled("b", 1),
        NodeAttemptFailed("a", 1, BOOM),
        TimerArmed("retry/a", NOW),
    )
    given = Given(plan, *waiting).when(ReportFailure("b", 1, BOOM))
    given.then(
        NodeFailed("b", 1, BOOM),
        NodeCancelled("a", "node 'b' failed"),
        TimerCancelled("retry/a"),
        ExecutionFailed(BOOM, "b", 1),
    )
    assert not given.now.timers


def test_late_and_duplicate_reports_change_nothing() -> None:
    done = (started(CHAIN), NodeScheduled("a", 1), NodeSucceeded("a", 1, "A"), NodeScheduled("b", 1))
    Given(CHAIN, *done).when(ReportSuccess("a", 1, "again"), ReportFailure("a", 1, BOOM)).then_nothing()
    Given(CHAIN, *done).when(ReportSuccess("b", 2), ReportLoss("b", 2)).then_nothing()


def test_reports_to_an_ended_execution_change_nothing() -> None:
    ended = (started(CHAIN), NodeScheduled("a", 1), NodeFailed("a", 1, BOOM), ExecutionFailed(BOOM, "a", 1))
    Given(CHAIN, *ended).when(ReportSuccess("a", 1), Recover(), FireTimer("t", "x-1", "retry/a", NOW)).then_nothing()


def test_recovery_resumes_what_was_under_way_and_leaves_what_was_done() -> None:
    running = (started(DIAMOND), NodeSucceeded("top", 1), NodeScheduled("left", 1), NodeScheduled("right", 1))
    Given(DIAMOND, *running).when(Recover()).then(NodeResumed("left", 1), NodeResumed("right", 1))


def test_what_had_not_begun_when_its_owner_left_is_not_resumed_but_placed() -> None:
    running = (started(DIAMOND), NodeSucceeded("top", 1), NodeScheduled("left", 1), NodeScheduled("right", 1))
    given = Given(DIAMOND, *running, NodeQueued("left", 1, "the next owner"))
    given.when(Recover()).then(NodePlaced("left", 1), NodeResumed("right", 1))


def test_recovery_of_nothing_is_nothing() -> None:
    Given(CHAIN).when(Recover()).then_nothing()


def test_a_lost_worker_is_replaced_three_times_and_then_the_node_fails_with_worker_lost() -> None:
    given = Given(CHAIN, started(CHAIN), NodeScheduled("a", 1))
    given.when(ReportLoss("a", 1), Recover(), ReportLoss("a", 1)).then(*[NodeResumed("a", 1)] * 3)
    lost = Error("WorkerLost", "the process that ran it was lost 4 times")
    given.when(ReportLoss("a", 1)).then(
        *[NodeResumed("a", 1)] * 3, NodeFailed("a", 1, lost), ExecutionFailed(lost, "a", 1)
    )


def test_how_a_worker_was_lost_is_recorded_and_told() -> None:
    given = Given(CHAIN, started(CHAIN), NodeScheduled("a", 1), *[NodeResumed("a", 1)] * 2)
    given.when(ReportLoss("a", 1, "process 7: gone")).then(NodeResumed("a", 1, "process 7: gone"))
    lost = Error("WorkerLost", "the process that ran it was lost 4 times; the last time process 8: gone")
    given.when(ReportLoss("a", 1, "process 8: gone"))
    assert given.events[1:] == [NodeFailed("a", 1, lost), ExecutionFailed(lost, "a", 1)]


def test_what_a_call_waits_for_is_recorded_when_it_changes_until_it_does_not_wait() -> None:
    given = Given(CHAIN, started(CHAIN), NodeScheduled("a", 1))
    given.when(ReportQueued("a", 1, "room"), ReportQueued("a", 1, "room")).then(NodeQueued("a", 1, "room"))
    assert given.now.running["a"].waits_for == "room"
    given.when(ReportQueued("a", 1, ""), ReportQueued("a", 1, ""), ReportQueued("a", 2, "late"))
    given.then(NodeQueued("a", 1, "room"), NodePlaced("a", 1))
    assert given.now.running["a"].waits_for == ""
    given.when(ReportQueued("a", 1, "room"), ReportLoss("a", 1))
    assert given.now.running["a"].waits_for == ""


def test_worker_lost_can_be_retried_like_any_error() -> None:
    plan = plan_of({"a": {"tool": "t", "retry": {"on": ["WorkerLost"]}}})
    resumed: list[Event] = [started(plan), NodeScheduled("a", 1), *[NodeResumed("a", 1)] * 3]
    Given(plan, *resumed).when(ReportLoss("a", 1)).then_types(NodeAttemptFailed, TimerArmed)


def test_what_ran_apart_is_not_to_blame_for_a_lost_owner() -> None:
    given = Given(
        DIAMOND, started(DIAMOND), NodeSucceeded("top", 1), NodeScheduled("left", 1), NodeScheduled("right", 1)
    )
    for _ in range(9):
        given.when(Recover(frozenset({"left", "right"})))
    given.then_nothing()
    assert set(given.now.running) == {"left", "right"}
