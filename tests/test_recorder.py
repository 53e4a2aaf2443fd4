"""The recorders pass every test that the `eventsourcing` library has for a persistence module."""

import os
from uuid import uuid4

import pytest
from eventsourcing.persistence import Tracking
from eventsourcing.tests import application, persistence, projection  # as modules: pytest collects what it finds
from eventsourcing.utils import Environment, get_topic
from recorder_factory import factory

from perdure.events.jetstream_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)
from perdure.events.recorder import JetStreamFactory

pytestmark = pytest.mark.usefixtures("recorder_environment")


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
    @pytest.mark.filterwarnings("default:'log' is deprecated:DeprecationWarning")  # it is what this one is about
    def test_application_log(self) -> None:
        super().test_application_log()


class TestEventCountersView(projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> Counters:
        return factory("eventcounters").tracking_recorder(Counters)  # type: ignore[return-value]


class TestEventCountersProjection(projection.AggregateEventCountersProjectionTestCase):
    view_class = Counters


class TestEventSourcedProjection(projection.EventSourcedProjectionTestCase):
    pass
