"""What the recorders add to the library's contract: atomic, fenced, visible in order, and clear when refused."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from eventsourcing.persistence import DataError, IntegrityError, OperationalError, StoredEvent, Tracking
from eventsourcing.utils import Environment
from proxy import Proxy
from recorder_factory import factory

from perdure.cluster.nats_server import NatsServer
from perdure.errors import EnvironmentProblem
from perdure.events.jetstream_recorders import JetStreamApplicationRecorder, JetStreamProcessRecorder
from perdure.events.recorder import JetStreamFactory

pytestmark = pytest.mark.usefixtures("recorder_environment")


@pytest.fixture
def recorder() -> Iterator[JetStreamProcessRecorder]:
    with_closing = factory()
    yield with_closing.process_recorder()
    with_closing.close()


def event(originator: UUID | str, version: int, topic: str = "t", state: bytes = b"s") -> StoredEvent:
    return StoredEvent(originator, version, topic, state)


def count(recorder: JetStreamApplicationRecorder) -> int:
    return len(recorder.select_notifications(None, 10_000))


def test_one_stale_originator_of_many_refuses_them_all_and_the_tracking(recorder: JetStreamProcessRecorder) -> None:
    first, second = uuid4(), uuid4()
    recorder.insert_events([event(second, 1)])
    with pytest.raises(IntegrityError, match=f"version 1 of the originator {second}"):
        recorder.insert_events([event(first, 1), event(first, 2), event(second, 1)], tracking=Tracking("up", 1))
    with pytest.raises(IntegrityError, match=f"version 2 of the originator {first}"):
        recorder.insert_events([event(first, 2), event(first, 2)], tracking=Tracking("up", 1))
    assert (recorder.max_tracking_id("up"), recorder.select_events(first), count(recorder)) == (None, [], 1)


def test_events_of_originators_that_take_turns_are_stored_in_their_order(recorder: JetStreamProcessRecorder) -> None:
    first, second = uuid4(), "some text"
    events = [event(first, 1), event(second, 1), event(first, 2), event(second, 2), event(first, 3)]
    assert recorder.insert_events(events, tracking=Tracking("up", 7)) == [1, 2, 3, 4, 5]
    assert recorder.insert_events([event(second, 3)]) == [7]  # the tracking is the sixth
    assert recorder.select_events(first) == events[::2]
    assert [item.id for item in recorder.select_notifications(None, 10)] == [1, 2, 3, 4, 5, 7]
    assert recorder.max_notification_id() == 7
    recorder.insert_tracking(Tracking("up", 9))
    assert recorder.max_notification_id() == 7


@pytest.mark.parametrize("originator", ["12ec745c-7e09-4e74-b955-59e14030a0f5", "", "a.b *>", "ü/🙂", "=41"])
def test_ids_and_topics_come_back_as_they_were(recorder: JetStreamProcessRecorder, originator: str) -> None:
    stored = event(originator, 0, " möd:Klass.<locals>\r\nEs-Version: 7 ", b"\0\xff")
    recorder.insert_events([stored, event(uuid4(), 1)])
    assert recorder.select_events(originator) == [stored]
    found = recorder.select_notifications(None, 1)[0]
    assert (found.originator_id, found.topic, found.state) == (originator, stored.topic, stored.state)


def test_versions_may_come_late_as_those_of_snapshots_do(recorder: JetStreamProcessRecorder) -> None:
    snapshots, id_ = factory().aggregate_recorder("snapshots"), uuid4()
    for version in (5, 2, 9, 4):
        snapshots.insert_events([event(id_, version)])
    with pytest.raises(IntegrityError):
        snapshots.insert_events([event(id_, 2)])
    snapshots.insert_events([event(id_, 8), event(id_, 7)])

    def versions(**arguments: int | bool) -> list[int]:
        return [item.originator_version for item in snapshots.select_events(id_, **arguments)]  # type: ignore[arg-type]

    assert versions() == [2, 4, 5, 7, 8, 9]
    assert versions(desc=True, limit=1) == [9]
    assert versions(desc=True, limit=1, lte=6) == [5]
    assert versions(gt=7) == [8, 9]
    assert versions(gt=9) == []
    snapshots.insert_events([event(id_, 10), event(id_, 11)])
    assert versions(gt=8) == [9, 10, 11]
    assert versions(desc=True, limit=1) == [11]
    assert recorder.max_notification_id() is None  # on a stream of their own


def test_old_positions_and_values_are_removed(recorder: JetStreamProcessRecorder) -> None:
    for number in range(1, 251):
        recorder.update_value("sum", lambda value: b"%d" % (int(value or 0) + 1), Tracking("up", number))
    link, stream = recorder._store.link, recorder._store.source.stream
    kept = link.run(link.nats.jetstream().stream_info(stream)).state.messages
    assert (recorder.value("sum"), recorder.max_tracking_id("up")) == (b"250", 250)
    assert kept <= 200


def test_a_long_history_is_not_read_from_its_beginning(recorder: JetStreamProcessRecorder) -> None:
    for start in range(0, 4000, 400):
        turns = [event(f"a{n % 2}", n // 2) for n in range(start, start + 400)]
        recorder.insert_events(turns)
    read: list[int] = []
    decode = recorder._store.reader._source.decode
    source = recorder._store.source._replace(decode=lambda message: read.append(1) or decode(message))  # type: ignore[func-returns-value]
    recorder._store.reader._source = source
    for gt in (99, 100, 101, 999, 1500, 1997, 1998, 1999, 2500):
        read.clear()
        found = recorder.select_events("a1", gt=gt)
        assert [item.originator_version for item in found] == list(range(gt + 1, 2000))
        assert len(read) < len(found) + 300


def test_more_than_the_server_takes_at_once_is_refused_whole(recorder: JetStreamProcessRecorder) -> None:
    with pytest.raises(DataError, match=r"atomic publish batch is too large: 1000.*save fewer events at once"):
        recorder.insert_events([event("many", version) for version in range(1001)])
    with pytest.raises(DataError, match="has 2000000 bytes"):
        recorder.insert_events([event("small", 1), event("large", 1, state=bytes(2_000_000))])
    with pytest.raises(DataError, match="a subject of 5"):
        recorder.insert_events([event("n" * 5000, 1)])
    assert count(recorder) == 0
    assert len(recorder.insert_events([event(str(number), 1) for number in range(1000)]) or []) == 1000


@pytest.fixture
def between(recorder: JetStreamProcessRecorder) -> Callable[[Callable[[], object]], None]:
    """Return what lets somebody else act once between the recorder's look at the stream and its write."""
    writer, todo = recorder._store.writer, list[Callable[[], object]]()
    store = writer._store

    async def late(*arguments: Any) -> range:
        if todo:
            await asyncio.to_thread(todo.pop())
        return await store(*arguments)

    writer._store = late  # type: ignore[assignment, method-assign]
    return todo.append


Between = Callable[[Callable[[], object]], None]


@pytest.mark.parametrize("others", [[], ["b"], ["b", "c", "b"]])
def test_a_version_that_another_takes_in_between_is_refused_with_all_that_was_to_come_with_it(
    recorder: JetStreamProcessRecorder, between: Between, others: list[str]
) -> None:
    other = factory().process_recorder()
    between(lambda: other.insert_events([event("a", 1, "theirs")]))
    events = [*(event(id_, number) for number, id_ in enumerate(others)), event("a", 1, "ours")]
    with pytest.raises(IntegrityError, match="version 1 of the originator a"):
        recorder.insert_events(events)
    assert [item.topic for item in recorder.select_notifications(None, 10)] == ["theirs"]


def test_a_position_that_another_takes_in_between_is_refused_with_its_events(
    recorder: JetStreamProcessRecorder, between: Between
) -> None:
    other = factory().process_recorder()
    between(lambda: other.insert_tracking(Tracking("up", 5)))
    with pytest.raises(IntegrityError, match="position 5 of up is not beyond 5"):
        recorder.insert_events([event("a", 1)], tracking=Tracking("up", 5))
    between(lambda: other.insert_tracking(Tracking("up", 7)))
    with pytest.raises(IntegrityError, match="position 6 of up is not beyond 7"):
        recorder.insert_tracking(Tracking("up", 6))
    assert (count(recorder), recorder.max_tracking_id("up")) == (0, 7)


def test_what_another_stores_in_between_without_a_conflict_only_costs_another_look(
    recorder: JetStreamProcessRecorder, between: Between
) -> None:
    other = factory().process_recorder()
    between(lambda: other.insert_events([event("a", 1)]))
    assert recorder.insert_events([event("a", 2), event("b", 1)]) == [2, 3]
    recorder.update_value("sum", lambda _value: b"1", Tracking("up", 1))
    between(lambda: other.update_value("sum", lambda value: b"%d" % (int(value or 0) + 10), Tracking("elsewhere", 1)))
    recorder.update_value("sum", lambda value: b"%d" % (int(value or 0) + 1), Tracking("up", 2))
    assert recorder.value("sum") == b"12"


def test_of_concurrent_inserts_of_one_version_exactly_one_wins() -> None:
    recorders = [factory().application_recorder() for _ in range(2)]

    def insert(number: int, version: int) -> bool:
        try:
            recorders[number % 2].insert_events([event("a", version), event(f"b{number}", version)][: 1 + number % 3])
        except IntegrityError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        for version in range(20):
            assert sum(threads.map(insert, range(8), [version] * 8)) == 1


def test_a_reader_that_polls_misses_no_id() -> None:
    """Singles and batches of several connections: no id may appear behind one that was read."""
    writers = [factory() for _ in range(3)]
    recorders = [writer.process_recorder() for writer in writers]
    reader = factory().application_recorder()

    def insert(number: int) -> list[int]:
        events = [event(f"{number}-{n % 3}", n) for n in range(number % 4 * 5 + 1)]
        tracking = {"tracking": Tracking(f"up{number}", 1)} if number % 5 == 0 else {}
        return list(recorders[number % 3].insert_events(events, **tracking) or [])

    with ThreadPoolExecutor(12) as threads:
        inserts = [threads.submit(insert, number) for number in range(240)]
        seen: list[int] = []
        polls = 0
        done = False
        while not done:
            done = all(insert.done() for insert in inserts)  # then one poll more
            while found := reader.select_notifications(seen[-1] if seen else 0, 7, inclusive_of_start=False):
                seen += [item.id for item in found]
                polls += 1
    assert seen == sorted(id_ for insert in inserts for id_ in insert.result())
    assert polls > len(seen) / 7


def test_a_subscriber_gets_all_in_order_from_other_connections(recorder: JetStreamProcessRecorder) -> None:
    other = factory().application_recorder()
    with recorder.subscribe(topics=["wanted"]) as subscription, ThreadPoolExecutor(1) as thread:
        ids = thread.submit(
            lambda: [other.insert_events([event("a", 2 * n), event("a", 2 * n + 1, "wanted")]) for n in range(50)]
        )
        seen = [next(subscription).id for _ in range(50)]
        assert seen == [(pair or [])[1] for pair in ids.result()]


def test_stopping_a_subscription_frees_who_waits_for_its_next_event(recorder: JetStreamProcessRecorder) -> None:
    with recorder.subscribe() as subscription, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(list, subscription)
        subscription.stop()
        assert waiting.result(5) == []


def test_an_application_may_have_a_server_of_its_own() -> None:
    with pytest.raises(EnvironmentProblem, match="neither ORDERS_PERDURE_NATS_URL nor PERDURE_NATS_URL is set"):
        JetStreamFactory(Environment("Orders"))
    nowhere = {"ORDERS_PERDURE_NATS_URL": "nats://127.0.0.1:1"}
    with pytest.raises(EnvironmentProblem, match="cannot connect to NATS at nats://127"):
        factory("Orders", **nowhere).application_recorder()
    factory("Bills", **nowhere).application_recorder()
    with pytest.raises(EnvironmentProblem, match="token file /nowhere cannot be read"):
        factory(PERDURE_NATS_TOKEN_FILE="/nowhere").application_recorder()
    with pytest.raises(EnvironmentProblem, match="PERDURE_LOG_TIMEOUT is 'soon'"):
        factory(PERDURE_LOG_TIMEOUT="soon")
    with pytest.raises(EnvironmentProblem, match="not a JetStreamProcessRecorder"):
        factory(PROCESS_RECORDER_TOPIC="eventsourcing.popo:POPOProcessRecorder").process_recorder()


def test_a_closed_factory_says_so() -> None:
    closed = factory()
    recorder = closed.application_recorder()
    closed.close()
    closed.close()
    with pytest.raises(OperationalError, match="the connection is closed"):
        recorder.insert_events([event("a", 1)])


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncIterator[Proxy]:
    async with Proxy.before(server.url) as proxy:
        yield proxy


def once(matches: Callable[[str, bytes], bool], fate: str) -> Callable[[str, bytes], str | None]:
    fates = iter([fate])
    return lambda subject, data: next(fates, None) if matches(subject, data) else None


def is_write(subject: str, data: bytes) -> bool:
    return subject.startswith("perdure.es.")


def is_commit(subject: str, data: bytes) -> bool:
    return is_write(subject, data) and (b"Nats-Batch-Commit" in data or b"Nats-Batch-Id" not in data)


def is_ack(subject: str, data: bytes) -> bool:
    return b'"seq":' in data and b'"stream":"' + os.environ["PERDURE_STREAM_PREFIX"].encode() in data


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("fate", ["drop", "cut"])
@pytest.mark.parametrize("what", [is_write, is_commit, is_ack])
async def test_whatever_is_lost_on_the_way_a_write_is_stored_once(
    proxy: Proxy, what: Callable[[str, bytes], bool], fate: str, size: int
) -> None:
    faulty = factory(PERDURE_NATS_URL=proxy.url, PERDURE_LOG_TIMEOUT="2")
    recorder = await asyncio.to_thread(faulty.process_recorder)
    setattr(proxy, "answers" if what is is_ack else "requests", once(what, fate))
    events = [event(f"a{number // 2}", number) for number in range(size)]
    tracking = {"tracking": Tracking("up", 1)} if size > 1 else {}
    ids = await asyncio.to_thread(recorder.insert_events, events, **tracking)
    assert ids == list(range(1, size + 1))
    assert await asyncio.to_thread(count, recorder) == size
    await asyncio.to_thread(faulty.close)


async def test_a_lost_answer_is_told_from_a_conflict_after_others_went_on(proxy: Proxy) -> None:
    """When our answer is lost and another writer went on from our event, ours is stored all the same."""
    faulty = factory(PERDURE_NATS_URL=proxy.url, PERDURE_LOG_TIMEOUT="2")
    recorder = await asyncio.to_thread(faulty.application_recorder)
    other = factory().application_recorder()

    def go_on(subject: str, data: bytes) -> str | None:
        if not is_ack(subject, data):
            return None
        proxy.answers = lambda _subject, _data: None
        other.insert_events([event("a", 2)])
        return "drop"

    proxy.answers = go_on
    assert await asyncio.to_thread(recorder.insert_events, [event("a", 1), event("b", 1)]) == [1, 2]
    with pytest.raises(IntegrityError):
        await asyncio.to_thread(recorder.insert_events, [event("a", 2)])
    await asyncio.to_thread(faulty.close)


async def test_a_server_that_stays_silent_is_named_and_the_outcome_said_to_be_unknown(proxy: Proxy) -> None:
    faulty = factory(PERDURE_NATS_URL=proxy.url, PERDURE_LOG_TIMEOUT="0.4")
    recorder = await asyncio.to_thread(faulty.application_recorder)
    proxy.answers = lambda subject, data: "drop" if is_ack(subject, data) else None
    proxy.requests = lambda subject, data: "drop" if "MSG.GET" in subject else None
    with pytest.raises(OperationalError, match=r"within 0\.4 s .*whether the write was stored is unknown"):
        await asyncio.to_thread(recorder.insert_events, [event("a", 1)])
    proxy.answers = lambda _subject, _data: "drop"
    with pytest.raises(OperationalError, match="did not answer"):
        await asyncio.to_thread(recorder.select_events, "a")
    await asyncio.to_thread(faulty.close)
