"""Executions of one event an entry, for those who subscribe."""

from uuid import uuid4

from histories import append, start

from perdure.events.jetstream_log import JetStreamLog
from perdure.events.vocabulary import NodeScheduled


def name() -> str:
    return f"s-{uuid4().hex[:8]}"


async def nodes(log: JetStreamLog, execution: str, count: int, workflow: str = "flow") -> None:
    """Append a start and so many entries of one event."""
    await append(log, execution, start(workflow))
    for n in range(2, count + 2):
        await append(log, execution, NodeScheduled(f"n{n}", 1), n=n)
