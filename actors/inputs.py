"""What an execution can be told: commands from outside, and reports of its own nodes and timers."""

from datetime import datetime
from typing import Any

import msgspec

from perdure.events.vocabulary import Error


class _Input(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=True):
    """The base of all inputs; the JSON form carries the class name as `type`."""


class StartExecution(_Input, frozen=True):
    """Begin this execution. `tools` maps the names in the definition to where each tool's code is."""

    id: str
    execution: str
    workflow: str
    digest: str
    input: Any
    lane: str
    tools: dict[str, str] = {}
    priority: int = 5


class FireTimer(_Input, frozen=True):
    """A timer that was armed in the past for the UTC time `due` has come due."""

    id: str
    execution: str
    timer: str
    due: datetime


class ActivateExecution(_Input, frozen=True):
    """Wake an execution whose history came from elsewhere: whatever was under way there goes on here."""

    id: str
    execution: str


class ReportSuccess(_Input, frozen=True):
    """An attempt at a node ended with this output."""

    node: str
    attempt: int
    output: Any = None


class ReportFailure(_Input, frozen=True):
    """An attempt at a node ended with this error."""

    node: str
    attempt: int
    error: Error


class ReportLoss(_Input, frozen=True):
    """The process that worked on an attempt is gone and gave no answer."""

    node: str
    attempt: int


class Recover(_Input, frozen=True):
    """A new owner took over; whatever was under way is not any more."""


Command = StartExecution | FireTimer | ActivateExecution
"""Inputs that travel through the inbox; each has an id, and counts once however often it arrives."""

Input = StartExecution | FireTimer | ActivateExecution | ReportSuccess | ReportFailure | ReportLoss | Recover

_decoder = msgspec.json.Decoder(Command)
_encoder = msgspec.json.Encoder()


def encode_command(command: Command) -> bytes:
    """Return the JSON form of a command."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Return the command; raises msgspec.DecodeError when it is none of this release."""
    command: Command = _decoder.decode(data)
    return command
