"""Help for testing workflows: `play` in virtual time, and a scripted model behind a real HTTP server.

`play` runs a definition on the engine's own decisions with scripted calls; see docs/testing.md. `Model` speaks OpenAI's
protocols, for tests with a real client.
"""

from perdure.played import Call, NotEnded, Played
from perdure.playing import play
from perdure.scripted_model import Model, Reply
from perdure.scripts import (
    Unscripted,
    approve,
    calls,
    cancel,
    change_input,
    complete_node,
    crash,
    extend_deadline,
    fails,
    lost,
    pause,
    reject,
    resume,
    retry,
    signal,
    skip_node,
    takes,
    terminate,
)

__all__ = [
    "Call",
    "Model",
    "NotEnded",
    "Played",
    "Reply",
    "Unscripted",
    "approve",
    "calls",
    "cancel",
    "change_input",
    "complete_node",
    "crash",
    "extend_deadline",
    "fails",
    "lost",
    "pause",
    "play",
    "reject",
    "resume",
    "retry",
    "signal",
    "skip_node",
    "takes",
    "terminate",
]
