"""Events as other systems get them: CloudEvents 1.0 in JSON, one for each event of the log."""

import hashlib

import msgspec

from perdure.events.entry import Happened

CONTENT_TYPE = "application/cloudevents+json"


class Message(msgspec.Struct, frozen=True):
    """One event on its way out. id: the same however often it is sent. body: the CloudEvent as JSON."""

    id: str
    type: str
    execution: str
    body: bytes


def message_of(happened: Happened, workflow: str, log: str) -> Message:
    """Return an event as it goes out. log: the identity of its log, for positions count in one log only."""
    kind = type(happened.event).__name__
    data = msgspec.to_builtins(happened.event)
    data.pop("type")
    event = {
        "specversion": "1.0",
        "id": f"{hashlib.sha256(log.encode()).hexdigest()[:12]}-{happened.position}-{happened.i}",
        "source": "perdure",
        "type": f"perdure.{kind}",
        "subject": happened.execution,
        "time": happened.at.isoformat(),
        "datacontenttype": "application/json",
        "perdureworkflow": workflow,
        "perdureposition": str(happened.position),
        "data": data,
    }
    return Message(event["id"], kind, happened.execution, msgspec.json.encode(event))
