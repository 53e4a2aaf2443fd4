"""The order of calls that wait for an actor: turns of executions, priority, age, and nobody waits for ever."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.call_queue import AGEING, CallQueue

CALLS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.floats(0, 100)), max_size=60)


def queue(*calls: tuple[str, int, float]) -> CallQueue[int]:
    """Return a queue of calls numbered in the order in which they came: execution, priority, time."""
    made: CallQueue[int] = CallQueue()
    for number, (share, priority, since) in enumerate(sorted(calls, key=lambda each: each[2])):
        made.add(number, share, since, priority)
    return made


def taken(calls: CallQueue[int], now: float = 1000.0) -> list[int]:
    return [calls.take(now) for _ in range(len(calls))]


def test_calls_of_one_execution_go_by_priority_then_age() -> None:
    assert taken(queue(("a", 5, 0), ("a", 5, 1), ("a", 9, 2), ("a", 0, 3))) == [2, 0, 1, 3]


def test_ten_thousand_calls_of_one_execution_do_not_delay_the_first_of_another() -> None:
    calls = queue(*[("a", 5, 0.0)] * 10_000)
    assert [calls.take(now) for now in (1.0, 2.0, 3.0)] == [0, 1, 2]
    calls.add(-1, "b", 3.5)
    assert [calls.take(4.0), calls.take(5.0)] == [3, -1]


def test_executions_take_turns_even_at_one_moment() -> None:
    again = queue(*[("a", 5, 0.0)] * 6, *[("b", 5, 1.0)] * 6, *[("c", 5, 2.0)] * 6)
    assert Counter(call // 6 for call in taken(again)[:9]) == {0: 3, 1: 3, 2: 3}


def test_a_higher_priority_goes_first_though_its_execution_had_a_turn() -> None:
    calls = queue(("a", 5, 0), ("b", 9, 1), ("b", 9, 2), ("b", 9, 3))
    assert taken(calls, 4.0) == [1, 2, 3, 0]


def test_a_minute_of_waiting_is_worth_one_step_of_priority() -> None:
    assert taken(queue(("a", 5, 0), ("b", 6, AGEING - 1))) == [1, 0]
    assert taken(queue(("a", 5, 0), ("b", 6, AGEING + 1))) == [0, 1]


def test_the_lowest_priority_is_served_within_nine_minutes_of_an_endless_stream_of_the_highest() -> None:
    calls = queue(("low", 0, 0.0))
    for second in range(1, 1000):
        calls.add(second, f"x{second}", second, 9)
        if calls.take(second) == 0:
            break
    assert 9 * AGEING - 1 <= second <= 9 * AGEING + 1


@given(CALLS)
def test_every_call_is_taken_once(calls: list[tuple[str, int, float]]) -> None:
    assert sorted(taken(queue(*calls))) == list(range(len(calls)))


@given(CALLS, st.data())
def test_one_that_was_taken_out_is_not_taken_and_changes_nothing_for_the_others(
    calls: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    both, without = queue(*calls), queue(*calls)
    out = data.draw(st.sets(st.sampled_from(range(len(calls)))) if calls else st.just(set[int]()))
    for number in out:
        without.remove(number)
        without.remove(number)
    assert len(without) == len(both) - len(out)
    assert sorted(taken(without)) == [each for each in range(len(calls)) if each not in out]


@given(st.integers(2, 8), st.integers(200, 1000))
def test_shares_of_equal_priority_are_equal_while_all_wait(executions: int, grants: int) -> None:
    calls: CallQueue[tuple[int, int]] = CallQueue()
    for number in range(grants):
        for execution in range(executions):
            calls.add((execution, number), str(execution), execution * 3.0)
    got = Counter(calls.take(100.0 + turn)[0] for turn in range(grants))
    assert max(got.values()) - min(got[execution] for execution in range(executions)) <= 1


@given(CALLS)
def test_within_an_execution_the_order_is_that_of_places(calls: list[tuple[str, int, float]]) -> None:
    made = queue(*calls)
    ordered = list(made)
    shares = {call: made.share_of(call) for call in ordered}
    order = taken(made)
    for share in "abcd":
        assert [each for each in order if shares[each] == share] == [each for each in ordered if shares[each] == share]
