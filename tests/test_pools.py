"""The pools' decisions: told of calls, ends and time, they answer what to spawn, grant and kill."""

from collections import Counter
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.actors.demands import Demand
from perdure.actors.pools import FAIRNESS, LAPSE, MAX_STARTING, PRESSURE, STARTING, Grant, Kill, Pools, Spawn


def demand(place: str = "m:f", *, gpu: float = 0, **shape: Any) -> Demand:
    return Demand(place, {"resources": {"gpu": gpu}} if gpu else {}, **shape)


class Cluster:
    """Pools with the answers that they give, and a Ray that has so many GPUs and starts actors when told to."""

    def __init__(self, gpus: float = 0, places: int = 2, idle: float = 30) -> None:
        self.pools = Pools(idle, places)
        self.gpus, self.now = gpus, 0.0
        self.pending: dict[str, Demand] = {}
        self.alive: dict[str, Demand] = {}
        self.granted: dict[str, str] = {}
        self.tickets = 0

    def ask(self, wanted: Demand, holder: str = "h", *, alone: bool = False, share: str = "", priority: int = 5) -> str:
        self.tickets += 1
        ticket = f"t{self.tickets}"
        self.do(self.pools.ask(ticket, holder, wanted, self.now, alone=alone, share=share, priority=priority))
        return ticket

    def know(self) -> Self:
        """Have the pools know how much the cluster has."""
        self.pools.totals = {"gpu": self.gpus}
        return self

    def do(self, actions: list[Any]) -> Self:
        for action in actions:
            match action:
                case Spawn(actor, wanted):
                    self.pending[actor] = wanted
                case Grant(ticket, actor):
                    assert actor in self.alive, "only what is alive and ready is granted"
                    self.granted[ticket] = actor
                case Kill(actor):
                    assert actor not in self.granted.values(), "nobody works there"
                    assert (self.pending.pop(actor, None) or self.alive.pop(actor, None)) is not None
        return self

    def start(self) -> Self:
        """Let Ray start what it has room for, and let that load its tool."""
        for actor, wanted in list(self.pending.items()):
            if actor in self.pending and self.used + wanted.amounts.get("gpu", 0) <= self.gpus:
                self.alive[actor] = self.pending.pop(actor)
                self.do(self.pools.placed(actor, self.now))
                self.do(self.pools.ready(actor, self.now))
        return self

    def end(self, ticket: str, *, spoiled: bool = False) -> Self:
        self.granted.pop(ticket, None)
        return self.do(self.pools.release(ticket, self.now, spoiled=spoiled))

    def wait(self, seconds: float, *holders: str) -> Self:
        self.now += seconds
        for holder in holders or ("h",):
            self.pools.hear(holder, self.now)
        return self.do(self.pools.tick(self.now))

    @property
    def used(self) -> float:
        return sum(each.amounts.get("gpu", 0) for each in self.alive.values())


def test_a_call_gets_an_actor_of_its_own_pool_which_is_then_warm_for_the_next() -> None:
    cluster = Cluster()
    first = cluster.ask(demand())
    assert first not in cluster.granted
    actor = cluster.start().granted[first]
    cluster.end(first)
    assert cluster.granted[cluster.ask(demand())] == actor
    other = cluster.ask(demand("m:g"))
    assert cluster.start().granted[other] != actor


def test_without_resources_as_many_work_at_once_as_the_cluster_has_cpus() -> None:
    cluster = Cluster(places=2)
    tickets = [cluster.ask(demand()) for _ in range(3)] + [cluster.ask(demand("m:g"))]
    assert set(cluster.start().granted) == set(tickets[:2])
    assert [cluster.pools.why(each) for each in tickets[2:]] == ["waiting for a free CPU"] * 2
    cluster.end(tickets[0]).end(tickets[1]).start()
    assert set(cluster.granted) == set(tickets[2:])


def test_with_resources_ray_says_how_many_fit_and_the_rest_is_told_what_it_waits_for() -> None:
    cluster = Cluster(gpus=4)
    tickets = [cluster.ask(demand(gpu=1)) for _ in range(200)]
    assert len(cluster.start().granted) == 4
    assert len(cluster.pending) == MAX_STARTING
    assert {cluster.pools.why(each) for each in tickets[4:]} == {"waiting for gpu=1"}
    for ticket in tickets:
        cluster.end(ticket)
    assert set(cluster.granted) == set()
    assert cluster.pending == {}, "what nobody waits for any more is not started"
    assert len(cluster.alive) == 4


def test_a_demand_for_more_than_the_cluster_has_says_so() -> None:
    cluster = Cluster()
    cluster.pools.totals = {"CPU": 8.0}
    ticket = cluster.ask(Demand("m:f", {"num_gpus": 1.0, "accelerator_type": "A100"}))
    assert cluster.pools.why(ticket) == (
        "waiting for num_gpus=1, accelerator_type=A100; the whole cluster has 0 GPU and 0 accelerator_type:A100"
    )


def test_a_pool_keeps_within_its_sizes_and_gives_back_what_is_idle() -> None:
    cluster = Cluster(gpus=9)
    wanted = demand(gpu=1, min=1, max=3, idle=10)
    tickets = [cluster.ask(wanted) for _ in range(5)]
    assert len(cluster.start().alive) == 3
    assert cluster.pools.why(tickets[-1]) == "waiting for one of its 3 node actors"
    for ticket in tickets:
        cluster.end(ticket)
    assert len(cluster.wait(9).alive) == 3
    assert len(cluster.wait(1).alive) == 1
    assert len(cluster.wait(1000).alive) == 1


def test_an_actor_takes_as_many_calls_at_once_as_its_pool_says_the_fullest_first() -> None:
    cluster = Cluster(gpus=9)
    wanted = demand(gpu=1, concurrency=3)
    tickets = [cluster.ask(wanted) for _ in range(4)]
    cluster.start()
    assert sorted(Counter(cluster.granted.values()).values()) == [1, 3]
    full = cluster.granted[tickets[0]]
    cluster.end(tickets[1])
    assert cluster.granted[cluster.ask(wanted)] == full


def test_a_call_that_may_have_taken_its_process_down_has_one_to_itself() -> None:
    cluster = Cluster(gpus=9)
    wanted = demand(gpu=1, concurrency=3)
    beside = cluster.ask(wanted)
    cluster.start()
    alone = cluster.ask(wanted, alone=True)
    assert alone not in cluster.granted
    cluster.start()
    assert cluster.granted[alone] != cluster.granted[beside]
    third = cluster.ask(wanted)
    assert cluster.granted[third] == cluster.granted[beside]


def test_a_spoiled_actor_takes_no_call_and_ends_when_it_has_none() -> None:
    cluster = Cluster(gpus=1)
    wanted = demand(gpu=1, concurrency=2)
    first, second = cluster.ask(wanted), cluster.ask(wanted)
    actor = cluster.start().granted[first]
    cluster.end(first, spoiled=True)
    third = cluster.ask(wanted)
    assert actor in cluster.alive
    assert third not in cluster.granted
    cluster.end(second)
    assert actor not in cluster.alive
    assert third in cluster.start().granted


def test_idle_actors_make_room_for_a_pool_that_waits_for_their_resources() -> None:
    cluster = Cluster(gpus=1)
    first = cluster.ask(demand(gpu=1, idle=1000))
    cluster.start().end(first)
    other = cluster.ask(demand("m:g", gpu=1))
    assert other not in cluster.start().granted
    cluster.wait(PRESSURE).start()
    assert other in cluster.granted


def test_those_that_are_to_be_kept_make_no_room() -> None:
    cluster = Cluster(gpus=1)
    cluster.start().end(cluster.ask(demand(gpu=1, min=1)))
    cluster.start()
    other = cluster.ask(demand("m:g", gpu=1))
    assert other not in cluster.wait(1000).start().granted


def test_a_busy_pool_gives_an_actor_to_one_that_has_waited_long() -> None:
    cluster = Cluster(gpus=1)
    before = [cluster.ask(demand(gpu=1)) for _ in range(3)]
    other = cluster.start().wait(1).ask(demand("m:g", gpu=1))
    after = [cluster.wait(1).ask(demand(gpu=1)) for _ in range(5)]
    for ticket in before:
        assert other not in cluster.granted
        cluster.wait(FAIRNESS / 3).end(ticket).start()
    assert other in cluster.granted
    assert not set(after) & cluster.granted.keys()
    assert set(after) & cluster.end(other).wait(PRESSURE).start().granted.keys()


def test_who_has_not_been_heard_of_loses_what_it_held() -> None:
    cluster = Cluster(gpus=1)
    first = cluster.ask(demand(gpu=1), "dead")
    second = cluster.start().ask(demand(gpu=1), "alive")
    cluster.granted.pop(first)  # it is gone
    cluster.wait(LAPSE, "alive").start()
    assert second in cluster.granted


def test_a_call_is_told_when_its_actor_could_not_start_and_the_next_one_has_another_try() -> None:
    cluster = Cluster(gpus=1)
    first, second = cluster.ask(demand(gpu=1, max=1)), cluster.ask(demand(gpu=1, max=1))
    (actor,) = cluster.pending
    assert cluster.pools.blamed(actor) == first
    del cluster.pending[actor]
    cluster.do(cluster.pools.gone(actor, cluster.now)).start()
    assert second in cluster.granted
    assert cluster.pools.blamed("unknown") is None


def test_an_actor_may_be_kept_for_the_next_call_unless_others_could_use_it() -> None:
    cluster = Cluster(gpus=2)
    wanted = demand(gpu=1)
    cluster.ask(wanted)
    cluster.start()
    assert cluster.pools.pressed("h") == []
    cluster.ask(wanted, "other")
    assert cluster.pools.pressed("h") == [wanted.key]
    cluster.start()
    assert cluster.pools.pressed("h") == []
    cluster.ask(demand("m:g", gpu=1), "other")
    assert cluster.pools.pressed("h") == [wanted.key]


def test_who_is_served_by_an_actor_that_is_starting_waits_for_nothing() -> None:
    cluster = Cluster(gpus=1)
    ticket = cluster.ask(demand(gpu=1))
    (actor,) = cluster.pending
    assert cluster.pools.why(ticket) == "waiting for gpu=1"
    cluster.pools.placed(actor, 0.1)
    assert cluster.pools.why(ticket) == STARTING
    cluster.pools.ready(actor, 0.2)
    assert cluster.pools.why(ticket) == ""


@pytest.mark.parametrize("gpu", [0, 1])
def test_pools_report_how_they_stand(gpu: int) -> None:
    cluster = Cluster(gpus=1, places=1)
    wanted = demand(gpu=gpu)
    tickets = [cluster.ask(wanted) for _ in range(3)]
    cluster.start()
    (report,) = cluster.pools.reports()
    why = "waiting for gpu=1" if gpu else "waiting for a free CPU"
    assert (report.place, report.actors - report.coming, report.busy, report.calls) == ("m:f", 1, 1, 1)
    assert (report.queued, report.waits) == (2, why)
    cluster.pools.hear("h", 0, {wanted.key: 180})
    assert [each.queued for each in cluster.pools.reports()] == [182]
    for ticket in tickets:
        cluster.end(ticket)
    cluster.wait(30).wait(1)
    assert list(cluster.pools.reports()) == []


def test_calls_of_one_pool_go_on_by_priority_and_by_turns_of_executions() -> None:
    cluster = Cluster()
    one = demand(max=1)
    first = cluster.ask(one, share="a")
    cluster.start()
    mine = [cluster.ask(one, share="a") for _ in range(3)]
    other, urgent = cluster.ask(one, share="b"), cluster.ask(one, share="a", priority=9)
    order = []
    for _ in range(5):
        cluster.end(next(iter(cluster.granted)))
        order.append(next(iter(cluster.granted)))
    assert order == [urgent, other, *mine]
    assert first not in order


def test_what_becomes_free_is_the_more_urgent_pools_and_the_others_are_not_even_asked_of_ray() -> None:
    cluster = Cluster(gpus=1).know()
    busy = cluster.ask(demand("m:busy", gpu=1))
    cluster.start()
    low = [cluster.ask(demand("m:low", gpu=1), priority=2) for _ in range(3)]
    cluster.wait(1)
    assert len(cluster.pending) == 3
    high = cluster.ask(demand("m:high", gpu=1), priority=8)
    assert [each.place for each in cluster.pending.values()] == ["m:high"]
    cluster.end(busy).wait(1).start()
    assert high in cluster.granted
    assert not set(low) & cluster.granted.keys()
    assert cluster.pools.why(low[0]) == "waiting for gpu=1"
    cluster.end(high).wait(1).start()
    assert low[0] in cluster.granted


def test_a_pool_that_is_less_urgent_takes_the_room_that_there_is() -> None:
    cluster = Cluster(gpus=3).know()
    cluster.ask(demand("m:big", gpu=4), priority=9)
    small = [cluster.ask(demand("m:small", gpu=1)) for _ in range(5)]
    assert [each.place for each in cluster.pending.values()] == ["m:big", "m:small", "m:small", "m:small"]
    cluster.start()
    assert sum(each in cluster.granted for each in small) == 3


def test_one_that_can_never_be_placed_keeps_nobody_from_his_turn() -> None:
    cluster = Cluster(gpus=1).know()
    cluster.ask(demand("m:impossible", gpu=2), priority=9)
    mine = [cluster.ask(demand("m:busy", gpu=1)) for _ in range(2)]
    cluster.start()
    other = cluster.ask(demand("m:other", gpu=1))
    for _ in range(int(FAIRNESS) + 5):
        assert other not in cluster.granted
        mine.append(cluster.ask(demand("m:busy", gpu=1)))
        cluster.end(mine.pop(0)).wait(1).start()
        if other in cluster.granted:
            break
    assert other in cluster.granted


@given(
    st.lists(st.tuples(st.sampled_from("abcs"), st.integers(0, 5), st.booleans()), max_size=60),
    st.integers(1, 3),
    st.booleans(),
    st.lists(st.integers(0, 9), min_size=1),
)
def test_whatever_happens_every_call_is_granted_in_the_end_within_all_bounds(
    steps: list[tuple[str, int, bool]], gpus: int, known: bool, priorities: list[int]
) -> None:
    demands = {"a": demand(gpu=1, max=2, concurrency=2), "b": demand("m:g", gpu=1), "c": demand("m:h", min=1)}
    cluster, open_tickets = Cluster(gpus=gpus, places=2), list[str]()
    if known:
        cluster.know()
    served = set[str]()
    for step, (kind, number, flag) in enumerate(steps):
        if kind in demands:
            priority = priorities[step % len(priorities)]
            open_tickets.append(cluster.ask(demands[kind], alone=flag, share=f"e{number}", priority=priority))
        elif flag:
            cluster.start()
        held = [each for each in open_tickets if each in cluster.granted]
        if number < len(held):
            served.add(held[number])
            cluster.end(held[number], spoiled=flag)
            open_tickets.remove(held[number])
        cluster.wait(number)
        assert cluster.used <= gpus
        for pool, many in Counter(each.key for each in (*cluster.pending.values(), *cluster.alive.values())).items():
            assert many <= (2 if pool == demands["a"].key else 100)
    for _ in range(400):
        if not open_tickets:
            break
        cluster.start()
        for each in [each for each in open_tickets if each in cluster.granted]:
            cluster.end(each)
            open_tickets.remove(each)
        cluster.wait(PRESSURE)
    assert open_tickets == []
