"""A persistence module for the `eventsourcing` library: `PERSISTENCE_MODULE=perdure.events.recorder`.

Each application has a stream of its own on NATS JetStream, snapshots have one beside it; the recorders are in
`jetstream_recorders`.
"""

import threading
from pathlib import Path
from typing import TypeVar

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment, EnvType, resolve_topic

from perdure.errors import EnvironmentProblem
from perdure.events import stored_events as form
from perdure.events.entry_recorder import EntryRecorder, entries
from perdure.events.jetstream_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
    Store,
)
from perdure.events.link import Link
from perdure.events.server_checks import ensure_stream
from perdure.events.subjects import token_of

T = TypeVar("T")


class JetStreamFactory(InfrastructureFactory[JetStreamTrackingRecorder]):
    """Makes recorders on the server that PERDURE_NATS_URL names; PERDURE_NATS_TOKEN_FILE holds its token.

    PERDURE_LOG_TIMEOUT: seconds, 10 where absent. PERDURE_STREAM_PREFIX: of the names of streams, `PERDURE_ES` where
    absent. As with all settings of the library, `<APPLICATION>_` before a name sets it for one application. Raises
    EnvironmentProblem where the server is not named, or with the first recorder where it cannot be used.
    """

    NATS_URL = "PERDURE_NATS_URL"
    NATS_TOKEN_FILE = "PERDURE_NATS_TOKEN_FILE"  # noqa: S105 (a setting's name)
    LOG_TIMEOUT = "PERDURE_LOG_TIMEOUT"
    STREAM_PREFIX = "PERDURE_STREAM_PREFIX"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._url = self.env.get(self.NATS_URL)
        if not self._url:
            keys = " nor ".join(self.env.create_keys(self.NATS_URL))
            raise EnvironmentProblem(f"neither {keys} is set; name a NATS server, such as nats://127.0.0.1:4222")
        self._timeout = _seconds(self.LOG_TIMEOUT, self.env.get(self.LOG_TIMEOUT) or "10")
        self._link: Link | None = None
        self._lock = threading.Lock()

    def aggregate_recorder(self, purpose: str = "events") -> JetStreamAggregateRecorder:
        """Return a recorder of events, or for another purpose, such as `snapshots`, on a stream of its own."""
        return JetStreamAggregateRecorder(self._store("" if purpose == "events" else f"-{token_of(purpose)}"))

    def application_recorder(self) -> JetStreamApplicationRecorder:
        """Return a recorder of an application, of the class that APPLICATION_RECORDER_TOPIC may name."""
        return self._class_of(self.APPLICATION_RECORDER_TOPIC, JetStreamApplicationRecorder)(self._store())

    def tracking_recorder(
        self, tracking_recorder_class: type[JetStreamTrackingRecorder] | None = None
    ) -> JetStreamTrackingRecorder:
        """Return a recorder of positions, of the given class or the one that TRACKING_RECORDER_TOPIC may name."""
        named = tracking_recorder_class or self._class_of(self.TRACKING_RECORDER_TOPIC, JetStreamTrackingRecorder)
        return named(self._store())

    def process_recorder(self) -> JetStreamProcessRecorder:
        """Return a recorder of an event-processing application, of the class that PROCESS_RECORDER_TOPIC may name."""
        return self._class_of(self.PROCESS_RECORDER_TOPIC, JetStreamProcessRecorder)(self._store())

    def entry_recorder(self) -> EntryRecorder:
        """Return a reader of perdure's own log, whatever the application."""
        return EntryRecorder(Store(self._linked(), entries(), self._timeout))

    def close(self) -> None:
        """Close the connection; recorders of this factory raise OperationalError from then on."""
        if self._link is not None:
            self._link.close()

    def _store(self, suffix: str = "") -> Store:
        prefix = self.env.get(self.STREAM_PREFIX) or "PERDURE_ES"
        stream = f"{token_of(prefix)}_{token_of(self.env.name) or 'default'}{suffix}"
        link = self._linked()
        link.run(ensure_stream(link.nats, form.stream_config(stream)))
        return Store(link, form.source(stream), self._timeout)

    def _linked(self) -> Link:
        with self._lock:
            if self._link is None:
                self._link = Link(str(self._url), _token(self.env.get(self.NATS_TOKEN_FILE)))
            return self._link

    def _class_of(self, key: str, default: type[T]) -> type[T]:
        topic = self.env.get(key)
        named: type[T] = resolve_topic(topic) if topic else default
        if not issubclass(named, default):
            raise EnvironmentProblem(f"{key} names {topic}, which is not a {default.__name__}")
        return named


Factory = JetStreamFactory


def _token(path: str | None) -> str | None:
    try:
        return Path(path).read_text().strip() if path else None
    except OSError as error:
        raise EnvironmentProblem(f"the token file {path} cannot be read: {error.strerror}") from None


def _seconds(key: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise EnvironmentProblem(f"{key} is {text!r}; give a number of seconds greater than 0")
    return seconds
