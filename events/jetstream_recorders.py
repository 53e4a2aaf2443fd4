"""Recorders of the `eventsourcing` library on JetStream streams, and subscriptions to them."""

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    Notification,
    OperationalError,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from nats.aio.msg import Msg

from perdure.errors import LogUnavailable
from perdure.events import stored_events as form
from perdure.events.direct_get import DirectGet
from perdure.events.fenced_writer import FencedWriter, Message, Tails
from perdure.events.link import Link
from perdure.events.stored_events import EventReader, Source

T = TypeVar("T")
_KEPT = 100  # positions about, that are kept of an upstream: to remove each at once doubles what a batch costs
_PAGE = 500  # events that a subscriber reads at once
_LOOK_FIRST, _LOOK_LAST = 0.05, 5.0  # seconds; a subscriber that heard nothing looks again, ever less often


class Store:
    """One stream, and what its recorders share. `timeout` is for each operation, in seconds."""

    def __init__(self, link: Link, source: Source, timeout: float) -> None:
        self.link = link
        self.source = source
        self.gets = DirectGet(link.nats, source.stream, timeout / 2)
        self.reader = EventReader(self.gets, source)
        self.writer = FencedWriter(link, self.gets, source.stream, timeout)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what an operation returns. Raises the library's OperationalError when the stream does not answer."""
        try:
            return self.link.run(work)
        except LogUnavailable as error:
            raise OperationalError(f"the stream {self.source.stream}: {error}") from error


class JetStreamRecorder(Recorder):
    """Keeps what it records in the stream of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    """Keeps events, or snapshots, of aggregates."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store all events or none. Raises IntegrityError when a version is taken."""
        self._insert(stored_events, None)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the events of one originator with versions in `(gt, lte]`, by version."""
        return self._store.run(self._store.reader.events_of(originator_id, gt, lte, limit, desc=desc))

    def _insert(self, events: Sequence[StoredEvent], tracking: Tracking | None) -> list[int]:
        source = self._store.source
        subjects = list(dict.fromkeys(source.subject_of(event.originator_id) for event in events))
        if tracking is not None:
            subjects.append(form.tracking_subject(source.stream, tracking.application_name))
        if not subjects:
            return []

        async def decide(tails: Tails) -> list[Message]:
            messages = await self._event_messages(events, tails)
            return messages if tracking is None else [*messages, _tracking_message(source.stream, tracking, tails)]

        return list(self._store.run(self._store.writer.write(subjects, decide)))[: len(events)]

    async def _event_messages(self, events: Sequence[StoredEvent], tails: Tails) -> list[Message]:
        """Return the events as messages. Versions may have gaps and come out of order, as snapshots of the past do."""
        lowest: dict[str, int] = {}
        pairs = [(self._store.source.subject_of(event.originator_id), event) for event in events]
        for subject, event in pairs:
            lowest[subject] = min(event.originator_version, lowest.get(subject, event.originator_version))
        known = {subject: await self._versions(subject, tails.get(subject), lowest[subject]) for subject in lowest}
        messages = []
        for subject, event in pairs:
            version = event.originator_version
            if version in known[subject].taken:
                raise IntegrityError(f"version {version} of the originator {event.originator_id} is recorded already")
            messages.append(Message(subject, event.state, form.headers_of(event, known[subject].add(version))))
        return messages

    async def _versions(self, subject: str, tail: Msg | None, lowest: int) -> "_Versions":
        """Return what is known of an originator, of which versions from `lowest` on are to be added."""
        if tail is None:
            return _Versions(set(), None, in_order=True)
        top = self._store.reader.top_of(tail)
        taken = await self._store.reader.versions_of(subject) if lowest <= top else set()
        return _Versions(taken, top, form.in_order(tail))


@dataclass
class _Versions:
    """Of one originator. taken: only where they matter; top: the greatest one."""

    taken: set[int]
    top: int | None
    in_order: bool

    def add(self, version: int) -> int | None:
        """Take a version; return the greatest one where they do not come in order."""
        self.taken.add(version)
        self.in_order &= self.top is None or version > self.top
        self.top = version if self.top is None else max(self.top, version)
        return None if self.in_order else self.top


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Keeps the events of an application; the ids of notifications are the sequences of the stream."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store all events or none and return their ids. Raises IntegrityError when a version is taken."""
        return self._insert(stored_events, None)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return events by id. An id is visible before any greater one: a reader that polls misses none."""
        after = max((start or 0) - (start is not None and inclusive_of_start), 0)
        return self.notifications(after, limit, stop, topics)[0]

    def notifications(
        self, after: int, limit: int, stop: int | None = None, topics: Sequence[str] = ()
    ) -> tuple[Sequence[Notification], int]:
        """Return events with ids in `(after, stop]`, at most `limit`, and the id up to which it looked for them."""
        return self._store.run(self._store.reader.notifications(after, limit, stop, topics))

    def max_notification_id(self) -> int | None:
        """Return the greatest id, or None where there is none."""
        return self._store.run(self._store.reader.last_id())

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Return an iterator over the events with ids greater than `gt`, which goes on with new ones as they come."""
        return JetStreamSubscription(self, gt, topics)


class JetStreamSubscription(Subscription[JetStreamApplicationRecorder]):
    """Reads in the thread of its consumer; live copies of the events only say that there is something to read."""

    def __init__(
        self, recorder: JetStreamApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._position = gt or 0
        self._ready: deque[Notification] = deque()
        self._awake = threading.Event()
        store = recorder._store
        self._link = store.link
        self._live = self._link.listen(store.source.live, self._awake)

    def __next__(self) -> Notification:
        """Return the next event; blocks until there is one, and ends when the subscription is stopped."""
        pause = _LOOK_FIRST
        while not self._has_been_stopped and not self._ready:
            self._awake.clear()
            found, self._position = self._recorder.notifications(self._position, _PAGE, topics=self._topics)
            self._ready.extend(found)
            if not found and not self._has_been_stopped:
                # A woken reader looks again soon: the replica that answered may not have had the event yet.
                pause = _LOOK_FIRST if self._awake.wait(pause) else min(2 * pause, _LOOK_LAST)
        if self._has_been_stopped:
            raise StopIteration
        return self._ready.popleft()

    def stop(self) -> None:
        """Stop the subscription, and whoever waits for its next event."""
        if not self._has_been_stopped:
            super().stop()
            self._awake.set()
            self._link.unlisten(self._live, self._awake)


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """Keeps how far upstream applications were processed. A subclass can keep the values of a view with it."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Store a position. Raises IntegrityError when it is not beyond the last one of its application."""
        stream = self._store.source.stream

        async def decide(tails: Tails) -> list[Message]:
            return [_tracking_message(stream, tracking, tails)]

        self._store.run(self._store.writer.write([form.tracking_subject(stream, tracking.application_name)], decide))

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position of an upstream application, or None where there is none."""
        last = self._store.run(
            self._store.gets.last(form.tracking_subject(self._store.source.stream, application_name))
        )
        return int(last.data) if last else None

    def value(self, name: str) -> bytes | None:
        """Return a value of the view."""
        last = self._store.run(self._store.gets.last(form.value_subject(self._store.source.stream, name)))
        return last.data if last else None

    def update_value(self, name: str, change: Callable[[bytes | None], bytes], tracking: Tracking) -> None:
        """Store a changed value together with a position; `change` may be asked again. Raises IntegrityError."""
        stream = self._store.source.stream
        subject = form.value_subject(stream, name)

        async def decide(tails: Tails) -> list[Message]:
            tail = tails.get(subject)
            position = _tracking_message(stream, tracking, tails)
            return [position, Message(subject, change(tail.data if tail else None), position.headers)]

        subjects = [form.tracking_subject(stream, tracking.application_name), subject]
        self._store.run(self._store.writer.write(subjects, decide))


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """Keeps events and the upstream position that they follow from, together or not at all."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store all events and `tracking`, or nothing, and return the events' ids. Raises IntegrityError."""
        return self._insert(stored_events, kwargs.get("tracking"))


def _tracking_message(stream: str, tracking: Tracking, tails: Tails) -> Message:
    subject = form.tracking_subject(stream, tracking.application_name)
    last = int(tails[subject].data) if subject in tails else None
    if last is not None and tracking.notification_id <= last:
        raise IntegrityError(
            f"position {tracking.notification_id} of {tracking.application_name} is not beyond {last}, the last one"
        )
    old = last is not None and tracking.notification_id // _KEPT > last // _KEPT
    return Message(subject, str(tracking.notification_id).encode(), {"Nats-Rollup": "sub"} if old else {})
