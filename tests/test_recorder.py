"""The recorders pass every test that the `eventsourcing` library has for a persistence module."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from eventsourcing.persistence import InfrastructureFactory, Tracking
from eventsourcing.tests import application, persistence, projection  # as modules: pytest collects what it finds
from eventsourcing.utils import Environment, get_topic

from perdure.cluster.nats_server import NatsServer
from perdure.events.jetstream_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)
from perdure.events.link import Link
from perdure.events.recorder import JetStreamFactory


@pytest.fixture(scope="module")
def link(server: NatsServer) -> Iterator[Link]:
    link = Link(server.url, server.token)
    yield link
    link.close()


@pytest.fixture(autouse=True)
def environment(server: NatsServer, store: Path, link: Link, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test streams of its own; afterwards nothing is left of them, and no thread."""
    prefix = f"T{uuid4().hex}"
    monkeypatch.setenv("PERSISTENCE_MODULE", "perdure.events.recorder")
    monkeypatch.setenv("PERDURE_NATS_URL", server.url)
    monkeypatch.setenv("PERDURE_NATS_TOKEN_FILE", str(store / "token"))
    monkeypatch.setenv("PERDURE_STREAM_PREFIX", prefix)
    before = set(threading.enumerate())
    yield
    gc.collect()  # the library leaves factories unclosed
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} outlived its test"
    link.run(delete_streams(link, prefix))


async def delete_streams(link: Link, prefix: str) -> None:
    js = link.nats.jetstream()
    for stream in await js.streams_info():
        if str(stream.config.name).startswith(prefix):
            await js.delete_stream(str(stream.config.name))


def factory(name: str = "") -> JetStreamFactory:
    made = InfrastructureFactory.construct(Environment(name, os.environ))
    assert isinstance(made, JetStreamFactory)
    return made


class Counters(JetStreamTrackingRecorder, projection.EventCountersView):
    """A view whose counters are stored with the positions that they follow from."""

    def get_created_event_counter(self) -> int:
        return int(self.value("created") or 0)

    def get_subsequent_event_counter(self) -> int:
        return int(self.value("subsequent") or 0)

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self.update_value("created", lambda value: b"%d" % (int(value or 0) + 1), tracking)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self.update_value("subsequent", lambda value: b"%d" % (int(value or 0) + 1), tracking)


class TestAggregateRecorder(persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> JetStreamAggregateRecorder:
        return factory().aggregate_recorder()


class TestSnapshotRecorder(persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> JetStreamAggregateRecorder:
        return factory().aggregate_recorder("snapshots")


class TestAggregateRecorderWithTextIds(TestAggregateRecorder):
    def new_originator_id(self) -> str:
        return f"order {uuid4()}.*"


class TestApplicationRecorder(persistence.ApplicationRecorderTestCase[JetStreamApplicationRecorder]):
    def create_recorder(self) -> JetStreamApplicationRecorder:
        return factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> JetStreamTrackingRecorder:
        return factory().tracking_recorder()


class TestProcessRecorder(persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> JetStreamProcessRecorder:
        return factory().process_recorder()


class TestProcessRecorderKeepsEvents(TestApplicationRecorder):
    def create_recorder(self) -> JetStreamProcessRecorder:
        return factory().process_recorder()


class TestNonInterleavingNotificationIds(persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> JetStreamApplicationRecorder:
        return factory().application_recorder()


class TestFactory(persistence.InfrastructureFactoryTestCase[JetStreamFactory]):
    def setUp(self) -> None:
        self.env = Environment("TestCase", os.environ)
        super().setUp()

    def expected_factory_class(self) -> type[JetStreamFactory]:
        return JetStreamFactory

    def expected_aggregate_recorder_class(self) -> type[JetStreamAggregateRecorder]:
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self) -> type[JetStreamApplicationRecorder]:
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[JetStreamTrackingRecorder]:
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self) -> type[JetStreamTrackingRecorder]:
        return Counters

    def expected_process_recorder_class(self) -> type[JetStreamProcessRecorder]:
        return JetStreamProcessRecorder


class TestExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(JetStreamFactory)


class TestApplication(application.ApplicationTestCase):
    pass


class TestEventCountersView(projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> Counters:
        return factory("eventcounters").tracking_recorder(Counters)  # type: ignore[return-value]


class TestEventCountersProjection(projection.AggregateEventCountersProjectionTestCase):
    view_class = Counters


class TestEventSourcedProjection(projection.EventSourcedProjectionTestCase):
    pass
