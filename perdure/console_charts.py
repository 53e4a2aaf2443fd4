"""What the command line says of a statechart's steps."""

from perdure.events.vocabulary import Event, EventIgnored, MacrostepTaken


def chart_line(event: Event) -> str | None:
    """Return one line on a step of a statechart, or an event that it ignored; None for any other event."""
    if isinstance(event, EventIgnored):
        return f"event {event.event}  ignored: {event.reason}"
    if not isinstance(event, MacrostepTaken):
        return None
    left = [path for step in event.steps for path in step.exited]
    entered = [path for step in event.steps for path in step.entered]
    parts = [f"event {event.event}" if event.event else "begin"]
    parts += [f"left {', '.join(left)}"] if left else []
    parts += [f"entered {', '.join(entered)}"] if entered else []
    parts += [f"set {', '.join(event.context)}"] if event.context else []
    return "  ".join(parts)
