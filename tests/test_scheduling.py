"""The scheduler of a limit: who gets it, in which order, how much in all, and that its facts say all of it."""

from collections.abc import Iterator
from itertools import count
from math import inf
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from perdure.actors.limit_facts import Fact, Granted, LimitEntry, Queued, Returned, Rule, Ruled, Superseded, Ticket
from perdure.actors.limit_state import Group, parts_of, replay
from perdure.actors.scheduling import AGEING, Scheduler

ONE = Rule(slots=1)


class Line:
    """A scheduler with a clock that the test moves, and all that it recorded."""

    def __init__(self, rule: Rule, **how: Any) -> None:
        self.now, self.rule, self.scheduler = 1000.0, rule, Scheduler(Group(), 1000.0, **how)
        self.how, self.entries, self.asked = how, list[LimitEntry](), dict[str, Ticket]()

    def ask(self, name: str, **parts: Any) -> str:
        parts = {"since": self.now, "holder": "p", **parts}
        self.asked[name] = Ticket(name, f"x-{name}", **parts)
        self.record(self.scheduler.ask(self.asked[name], self.rule, self.now))
        return self.scheduler.standing(name).state

    def give_back(self, name: str, cost: float | None = None, holder: str = "p") -> list[str]:
        return self.record(self.scheduler.give_back(name, holder, cost, self.now))

    def later(self, seconds: float, *alive: str) -> list[str]:
        self.now += seconds
        for holder in alive:
            self.scheduler.hear(holder, self.now)
        return self.record(self.scheduler.tick(self.now))

    def restart(self) -> list[str]:
        """Have another one decide, of whom all ask again who have got nothing."""
        waiting = [each for each in self.asked.values() if self.scheduler.standing(each.id).state == "waiting"]
        self.scheduler = Scheduler(replay(self.entries), self.now, opens=self.now + 1, **self.how)
        for ticket in waiting:
            self.record(self.scheduler.ask(ticket, self.rule, self.now))
        return self.later(1.0)

    def record(self, facts: list[Fact]) -> list[str]:
        if facts:
            self.entries.append(LimitEntry(self.now, facts))
        return [fact.ticket.id for fact in facts if isinstance(fact, Granted)]

    def of(self, kind: type) -> list[Any]:
        return [fact for entry in self.entries for fact in entry.facts if isinstance(fact, kind)]


def test_so_many_hold_it_at_once_and_the_next_one_follows_when_one_gives_it_back() -> None:
    line = Line(Rule(slots=2))
    assert [line.ask(name) for name in "abc"] == ["held", "held", "waiting"]
    assert line.scheduler.standing("c").before == 0
    assert line.give_back("a") == ["c"]
    assert line.give_back("a") == []  # it counts once


def test_a_ticket_that_is_asked_for_again_keeps_what_it_has() -> None:
    line = Line(ONE)
    assert [line.ask("a"), line.ask("a"), line.ask("b"), line.ask("b")] == ["held", "held", "waiting", "waiting"]
    assert len(line.of(Granted)) == 1


def test_who_took_a_ticket_over_is_the_one_who_can_give_it_back() -> None:
    line = Line(ONE)
    line.ask("a", holder="old")
    assert line.ask("a", holder="new") == "held"
    line.ask("b", holder="new")
    assert line.give_back("a", holder="old") == []
    assert line.give_back("a", holder="new") == ["b"]


def test_priority_goes_before_age_and_age_before_newcomers() -> None:
    line = Line(ONE)
    line.ask("first")
    for name, priority in (("low", 2), ("high", 8), ("middle", 5)):
        line.now += 0.1
        line.ask(name, priority=priority)
    line.now += 0.1
    line.ask("high too", priority=8)
    order = [line.give_back(name)[0] for name in ("first", "high", "high too", "middle")]
    assert order == ["high", "high too", "middle", "low"]


def test_one_step_of_priority_is_worth_a_minute_of_waiting() -> None:
    line = Line(ONE)
    line.ask("first")
    line.ask("old and low", priority=4)
    line.now += AGEING + 1
    line.ask("new and higher", priority=5)
    assert line.give_back("first") == ["old and low"]


def test_a_tenant_with_ten_thousand_waiting_does_not_delay_the_first_of_another() -> None:
    line = Line(ONE)
    line.ask("first", share="big")
    for number in range(10_000):
        line.ask(f"big-{number}", share="big")
    line.ask("small-0", share="small")
    assert line.give_back("first") == ["small-0"]


def test_who_was_away_has_no_claim_on_the_turns_that_it_missed() -> None:
    line = Line(ONE)
    line.ask("a0", share="a")
    for number in range(1, 100):
        line.ask(f"a{number}", share="a")
        line.give_back(f"a{number - 1}")
    for number in range(5):
        line.ask(f"late-{number}", share="b")
        line.ask(f"more-{number}", share="a")
    granted, last = [], "a99"
    for _ in range(8):
        granted += line.give_back(last)
        last = granted[-1]
    assert abs(sum(name.startswith("late") for name in granted) - 4) <= 1


def test_a_rate_is_taken_up_to_its_burst_and_comes_back_with_time() -> None:
    line = Line(Rule(rate=10, per=1, burst=20))
    assert line.ask("a", cost=20) == "held"
    assert line.ask("b", cost=5) == "waiting"
    assert line.scheduler.next_due(line.now) == pytest.approx(line.now + 0.5)
    assert line.later(0.4, "p") == []
    assert line.later(0.1, "p") == ["b"]


def test_the_true_cost_is_settled_when_a_ticket_comes_back() -> None:
    line = Line(Rule(rate=10, per=1, burst=100))
    line.ask("dear", cost=10)
    line.give_back("dear", cost=150)  # 50 in debt
    assert line.ask("next", cost=10) == "waiting"
    assert line.scheduler.next_due(line.now) == pytest.approx(line.now + 6)
    cheap = Line(Rule(rate=10, per=1, burst=100))
    cheap.ask("cheap", cost=100)
    cheap.give_back("cheap", cost=1)
    assert cheap.ask("next", cost=99) == "held"


def test_a_cost_above_the_burst_waits_for_all_of_it_and_leaves_a_debt() -> None:
    line = Line(Rule(rate=10, per=1))
    assert line.ask("huge", cost=40) == "held"
    assert line.ask("small", cost=1) == "waiting"
    assert line.scheduler.next_due(line.now) == pytest.approx(line.now + 3.1)


def test_a_dear_one_is_not_overtaken_for_ever_by_cheap_ones() -> None:
    line = Line(Rule(rate=10, per=1))
    line.ask("a", cost=10)
    line.ask("dear", cost=10)
    line.now += 0.1
    line.ask("cheap", cost=1)
    assert line.later(0.5, "p") == []
    assert line.later(0.4, "p") == ["dear"]


def test_at_a_limit_that_rejects_whoever_comes_too_late_is_gone() -> None:
    line = Line(Rule(slots=1, at_limit="reject"))
    assert [line.ask("a"), line.ask("b")] == ["held", "gone"]
    line.give_back("a")
    assert line.ask("b") == "held"


def test_where_the_older_is_cancelled_only_the_newest_are_left() -> None:
    line = Line(Rule(slots=1, at_limit="cancel_older"))
    for name in "abc":
        line.now += 1
        line.ask(name)
    assert [line.scheduler.standing(name).state for name in "abc"] == ["superseded", "superseded", "waiting"]
    assert line.scheduler.standing("a").by == "b"
    assert [fact.ticket.id for fact in line.of(Superseded)] == ["a", "b"]
    line.give_back("b")
    assert line.give_back("a") == ["c"]  # the limit holds until the older one has gone


def test_what_a_silent_process_holds_lapses_and_what_a_living_one_holds_does_not() -> None:
    line = Line(Rule(slots=2), ttl=5.0)
    line.ask("a", holder="dies")
    line.ask("b", holder="lives")
    line.ask("c", holder="lives")
    assert line.later(4.9, "lives") == []
    assert line.later(0.1, "lives") == ["c"]
    assert line.scheduler.standing("a").state == "gone"
    assert line.later(100, "lives") == []
    assert line.scheduler.standing("b").state == "held"


def test_an_execution_has_no_process_that_could_fall_silent() -> None:
    line = Line(ONE)
    line.ask("x", holder="")
    line.ask("y", holder="")
    assert line.later(10_000) == []
    assert [fact.ticket.id for fact in line.of(Queued)] == ["y"]
    assert line.give_back("x", holder="") == ["y"]


def test_the_newer_rule_counts_and_a_rule_of_the_settings_before_any_definition() -> None:
    line = Line(Rule(slots=1, rank=(0, 10.0)))
    assert [line.ask("a"), line.ask("b")] == ["held", "waiting"]
    line.rule = Rule(slots=5, rank=(0, 9.0))
    assert line.ask("older definition") == "waiting"
    line.rule = Rule(slots=4, rank=(0, 11.0))
    assert line.ask("newer definition") == "held"
    assert line.scheduler.standing("b").state == "held"
    line.rule = Rule(slots=5, rank=(1, 0.0))
    assert line.ask("settings") == "held"
    line.rule = Rule(slots=9, rank=(0, 99.0))
    assert line.ask("much newer definition") == "waiting"
    assert len(line.of(Ruled)) == 3


def test_after_it_opened_anew_it_waits_for_those_who_have_to_ask_again() -> None:
    before = Line(ONE)
    before.ask("a")
    line = Line(ONE, opens=1001.0)
    line.scheduler.group = replay(before.entries)
    line.scheduler = Scheduler(line.scheduler.group, 1000.0, opens=1001.0)
    line.give_back("a")
    assert line.ask("late", since=999.9) == "waiting"
    assert line.ask("early", since=900.0) == "waiting"
    assert line.later(1.0, "p") == ["early"]


@given(
    st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0, 10.0]), min_size=2, max_size=5),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=15)
def test_shares_are_within_ten_per_cent_over_a_thousand_grants(
    weights: list[float], slots: int, by_cost: bool, seed: int
) -> None:
    """Exactly ten: of weights of 1 to 10 the least has 24 of a thousand, and no share is ahead by more than one."""
    random, numbers, dearest = Random(seed), count(), 5 if by_cost else 1
    shares = {f"s{number}": weight for number, weight in enumerate(weights)}
    line = Line(Rule(slots=slots, rate=1e9 if by_cost else None, weights=shares), ttl=1e9)
    held = [f"busy/{number}" for number in range(slots)]
    for name in held:
        line.ask(name, share="busy")

    def fill(share: str) -> None:
        line.ask(
            f"{share}/{next(numbers)}", share=share, priority=random.randrange(10), cost=random.randint(1, dearest)
        )

    for share in [*shares] * (slots + 3):  # of each so many that some always wait
        fill(share)
    granted, had = 0, dict.fromkeys(shares, 0.0)
    while granted < 1000:
        for name in line.give_back(held.pop(random.randrange(len(held)))):
            held.append(name)
            share = name.split("/")[0]
            granted, had[share] = granted + 1, had[share] + line.asked[name].cost
            fill(share)
        turns = {share: had[share] / weight for share, weight in shares.items()}
        first = min(turns.values())
        assert all(turns[share] <= first + dearest / weight + 1e-6 for share, weight in shares.items()), (had, weights)
    for share, weight in shares.items():
        fair = sum(had.values()) * weight / sum(weights)
        assert abs(had[share] - fair) <= 0.1 * fair, (had, weights)


@given(st.integers(0, 9), st.integers(1, 9))
@settings(deadline=None)
def test_nobody_starves_however_many_of_higher_priority_keep_coming(low: int, above: int) -> None:
    line, high = Line(ONE, ttl=1e9), min(9, low + above)
    last = "busy"
    line.ask(last, priority=9)
    line.ask("patient", priority=low)
    for number in range(1000):
        line.now += 1.0
        line.ask(f"n{number}", priority=high)
        (last,) = line.give_back(last)
        if last == "patient":
            break
    assert line.scheduler.standing("patient").state == "held"
    assert line.now - 1000 <= (high - low) * AGEING + 2


RULES = st.builds(
    Rule,
    slots=st.none() | st.integers(1, 3),
    rate=st.none() | st.sampled_from([1.0, 5.0]),
    burst=st.none() | st.sampled_from([2.0, 10.0]),
    at_limit=st.sampled_from(["queue", "reject", "cancel_older"]),
    weights=st.just({"s1": 2.0}),
    rank=st.just((0, 0.0)),
)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: the limit holds, nobody is lost, and the facts are all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.line: Line | None = None
        self.names = count()
        self.asked: dict[str, tuple[str, float]] = {}

    @precondition(lambda self: self.line is None)
    @rule(rule=RULES)
    def open(self, rule: Rule) -> None:
        self.line = Line(rule, ttl=20.0)

    @precondition(lambda self: self.line is not None)
    @rule(
        key=st.sampled_from("kl"), share=st.sampled_from(["s1", "s2"]), cost=st.sampled_from([1.0, 3.0, 20.0]),
        priority=st.integers(0, 9), holder=st.sampled_from(["", "p", "q"]),
    )  # fmt: skip
    def ask(self, key: str, share: str, cost: float, priority: int, holder: str) -> None:
        assert self.line is not None
        name = f"t{next(self.names)}"
        if self.line.ask(name, key=key, share=share, cost=cost, priority=priority, holder=holder) != "gone":
            self.asked[name] = (holder, cost)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), cost=st.none() | st.sampled_from([0.0, 2.0]))
    def give_back(self, data: Any, cost: float | None) -> None:
        assert self.line is not None
        name = data.draw(st.sampled_from(sorted(self.asked)))
        self.line.give_back(name, cost, self.asked.pop(name)[0])

    @precondition(lambda self: self.line is not None)
    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0]), alive=st.sets(st.sampled_from(["p", "q"])))
    def time(self, seconds: float, alive: set[str]) -> None:
        assert self.line is not None
        self.line.later(seconds, *alive)
        gone = {name for name in self.asked if self.line.scheduler.standing(name).state == "gone"}
        assert all(self.asked[name][0] for name in gone)  # executions never lapse
        self.asked = {name: each for name, each in self.asked.items() if name not in gone}

    @precondition(lambda self: self.line is not None)
    @rule(size=st.integers(1, 3))
    def compact(self, size: int) -> None:
        assert self.line is not None
        if self.line.scheduler.group.rule is not None:
            self.line.scheduler.compact(self.line.now)
            parts: list[Fact] = [*parts_of(self.line.scheduler.group, size)]
            self.line.entries = [LimitEntry(self.line.now, [part]) for part in parts]

    @invariant()
    def the_limit_is_never_exceeded(self) -> None:
        if self.line is None or self.line.rule.slots is None:
            return
        assert all(len(keyed.held) <= self.line.rule.slots for keyed in self.line.scheduler.group.keys.values())

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        if self.line is None or self.line.rule.rate is not None or self.line.rule.slots is None:
            return
        for key, keyed in self.line.scheduler.group.keys.items():
            assert len(keyed.held) == self.line.rule.slots or not self.line.scheduler.waiting(key)

    @invariant()
    def whoever_asked_is_known(self) -> None:
        if self.line is not None:
            assert all(self.line.scheduler.standing(name).state != "gone" for name in self.asked)

    @invariant()
    def the_facts_give_the_live_state(self) -> None:
        if self.line is None:
            return
        stored = [msgspec.json.decode(msgspec.json.encode(entry), type=LimitEntry) for entry in self.line.entries]
        again, live = replay(stored), self.line.scheduler.group
        empty = {key for key, keyed in live.keys.items() if msgspec.to_builtins(keyed) == {}}
        assert {key: each for key, each in again.keys.items() if key not in empty} == {
            key: each for key, each in live.keys.items() if key not in empty
        }
        assert again.rule == live.rule


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Asked(NamedTuple):
    """One thing that is done to a limit: ask, give one back (the so-manieth that holds), or let time pass."""

    what: Literal["ask", "give back", "time", "restart"]
    number: int = 0
    priority: int = 5
    waited: float = 0.0
    share: str = ""
    cost: float = 1.0
    spent: float | None = None


QUARTERS = st.integers(0, 1200).map(lambda number: number / 4)  # whole in binary, so that equal ages are equal
SEQUENCES = st.lists(
    st.builds(
        Asked,
        what=st.sampled_from(["ask", "ask", "ask", "give back", "give back", "time", "restart"]),
        number=st.integers(0, 3),
        priority=st.integers(0, 9),
        waited=QUARTERS,
        share=st.sampled_from(["s1", "s2"]),
        cost=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0]),
        spent=st.none() | st.sampled_from([0.0, 2.0, 40.0]),
    ),
    min_size=20,
    max_size=60,
)


def play(line: Line, sequence: list[Asked]) -> Iterator[list[str]]:
    """Do all of it one after another, and yield whom each has granted."""
    for number, each in enumerate(sequence):
        held = [name for keyed in line.scheduler.group.keys.values() for name in keyed.held]
        before = len(line.of(Granted))
        if each.what == "ask":
            since = line.now - each.waited
            line.ask(f"t{number}", priority=each.priority, since=since, share=each.share, cost=each.cost)
        elif each.what == "give back" and held:
            line.give_back(held[each.number % len(held)], each.spent)
        elif each.what == "time":
            line.later(each.waited / 16, "p")
        elif each.what == "restart":
            line.restart()
        yield [fact.ticket.id for fact in line.of(Granted)[before:]]


@given(SEQUENCES, RULES.filter(lambda rule: rule.at_limit == "queue"), st.sampled_from([60.0, 0.25, inf]))
@settings(deadline=None)
def test_whoever_is_granted_comes_first_of_its_share_by_priority_and_age(
    sequence: list[Asked], rule: Rule, ageing: float
) -> None:
    """An ageing of inf is none: whoever is of higher priority always goes first."""
    line, done = Line(rule, ttl=1e9, ageing=ageing), set[str]()

    def rank(ticket: Ticket) -> tuple[float, float]:
        age = line.now - ticket.since
        return (ticket.priority if ageing == inf else age + ticket.priority * ageing), age

    for granted in play(line, sequence):
        for name in granted:
            done.add(name)
            first, waiting = line.asked[name], [each for each in line.asked.values() if each.id not in done]
            assert all(rank(first) >= rank(each) for each in waiting if each.share == first.share)


@given(SEQUENCES, RULES.filter(lambda rule: rule.rate is not None))
@settings(deadline=None)
def test_a_rate_is_never_exceeded_whatever_comes_back_and_gives_what_time_brings(
    sequence: list[Asked], rule: Rule
) -> None:
    """In no span of time is more taken than the burst and what that time brings; a debt counts to its own span."""
    line = Line(msgspec.structs.replace(rule, slots=None), ttl=1e9)
    for _ in play(line, sequence):
        pass
    assert rule.rate is not None
    spans: list[float] = []  # of each moment until now: what has been taken since, less what time has brought
    at = line.now
    for entry in line.entries:
        spans, at = [each - (entry.at - at) * rule.rate / rule.per for each in spans], entry.at
        for fact in entry.facts:
            if isinstance(fact, Returned):
                spent = 0.0 if fact.cost is None else fact.cost - line.asked[fact.ticket].cost
                spans = [each + spent for each in spans]
            elif isinstance(fact, Granted):
                spans = [each + fact.ticket.cost for each in (*spans, 0.0)]
                assert max(spans) <= max(rule.most, fact.ticket.cost) + 1e-6
    if (due := line.scheduler.next_due(line.now)) is not None:
        assert line.later(due - line.now - 1e-3, "p") == []
        assert line.later(2e-3, "p")


def test_a_rate_never_gives_more_than_its_burst_and_what_time_brings() -> None:
    line, taken = Line(Rule(rate=5, per=1, burst=7), ttl=1e9), 0.0
    for number in range(200):
        line.ask(f"t{number}", cost=1 + number % 3)
        line.later(0.05)
    taken = sum(fact.ticket.cost for fact in line.of(Granted))
    assert 7 + 5 * 10 - 3 <= taken <= 7 + 5 * 10
    assert not line.of(Returned)
