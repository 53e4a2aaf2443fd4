"""A driver that starts, signals, pauses, resumes, cancels and terminates executions until it is killed.

What it does is noted in a file, before and after each command: `python chaos_driver.py STORE FILE SEED`.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from chaos_oracle import Answer, Given

from perdure import PerdureError, Settings
from perdure.actors.inputs import (
    CancelExecution,
    Control,
    PauseExecution,
    ResumeExecution,
    SignalExecution,
    TerminateExecution,
)
from perdure.cluster.client import AsyncClient
from perdure.cluster.run import AsyncRun
from perdure.errors import CommandNotAllowed

WORKERS = 6
_KINDS: dict[str, Callable[[str, str], Control]] = {
    "cancel": CancelExecution, "pause": PauseExecution, "resume": ResumeExecution, "terminate": TerminateExecution,
}  # fmt: skip

# Steps after the start; those in one tuple race. Whoever finishes them signals what still waits.
SCENARIOS: list[list[tuple[str, ...]]] = [
    [("signal",)],
    [("signal",), ("signal",)],
    [("signal", "signal")],
    [("pause",), ("resume",), ("signal",)],
    [("pause",), ("signal",), ("resume",)],
    [("pause",), ("cancel",)],
    [("pause", "signal")],
    [("cancel",)],
    [("terminate",)],
    [("signal", "cancel")],
    [("signal",), ("cancel",)],
    [("cancel",), ("signal",)],
    [("cancel", "terminate")],
    [("signal", "terminate", "pause")],
    [],
]


class Notes:
    """The file in which the commands are noted; one line leaves in one write, so that several may write."""

    def __init__(self, file: Path) -> None:
        self.path = file
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, **what: Any) -> None:
        os.write(self._file, json.dumps({**what, "at": time.monotonic()}).encode() + b"\n")


async def give(notes: Notes, run: AsyncRun, kind: str) -> None:
    """Give an execution a command, and note how it was answered; a signal's data is its command's id."""
    name = uuid4().hex
    command = SignalExecution(name, run.id, "go", name) if kind == "signal" else _KINDS[kind](name, run.id)
    notes.add(execution=run.id, kind=kind, id=name)
    answer: Answer = "unknown"
    try:
        answer = "decided" if await run._tell(command) else "stored"
    except CommandNotAllowed:
        answer = "refused"
    except (PerdureError, OSError) as error:
        notes.add(error=repr(error))
    notes.add(execution=run.id, id=name, answer=answer)


async def begin(notes: Notes, client: AsyncClient, workflow: dict[str, Any], execution: str) -> AsyncRun | None:
    """Start an execution; None where nobody knows whether it was."""
    notes.add(execution=execution, kind="start", id=execution)
    try:
        run = await client.start(workflow, execution, id=execution)
    except (PerdureError, OSError) as error:
        notes.add(error=repr(error))
        return None
    notes.add(execution=execution, id=execution, answer="stored")
    return run


async def play(notes: Notes, client: AsyncClient, workflow: dict[str, Any], chance: random.Random) -> None:
    """Start one execution after the other, and give each the commands of a scenario."""
    while True:
        steps, pauses = chance.choice(SCENARIOS), [chance.uniform(0, 0.6) for _ in range(4)]
        run = await begin(notes, client, workflow, uuid4().hex)
        await _while_it_has_not_begun(run)
        for step, pause in zip(steps, pauses, strict=False):
            if run is not None:
                await asyncio.sleep(pause)
                await asyncio.gather(*(give(notes, run, kind) for kind in step))


async def _while_it_has_not_begun(run: AsyncRun | None) -> None:
    """Wait until an execution has begun: before that commands find nothing that they could be for."""
    try:
        while run is not None and await run.begun(within=5) is None:
            pass
    except (PerdureError, OSError):
        await asyncio.sleep(0.1)


def read(file: Path) -> dict[str, list[Given]]:
    """Return what was noted: each execution's commands, in the order in which they were given."""
    asked: dict[str, dict[str, Any]] = {}
    answered: dict[str, tuple[Answer, float]] = {}
    for line in file.read_text().splitlines():
        note = json.loads(line)
        if "kind" in note:
            asked[note["id"]] = note
        elif "answer" in note:
            answered[note["id"]] = (note["answer"], note["at"])
    histories: dict[str, list[Given]] = defaultdict(list)
    for name, note in asked.items():
        commands = histories[note["execution"]]
        if note["kind"] != "start":
            answer, ended = answered.get(name, ("unknown", float("inf")))
            commands.append(Given(note["kind"], name, answer, note["at"], ended, name))
    return histories


async def main(store: Path, file: Path, seed: str) -> None:
    workflow = json.loads((file.parent / "workflow.json").read_text())
    async with await AsyncClient.open(Settings(store=store), "none") as client:
        notes, chances = Notes(file), [random.Random(f"{seed}/{number}") for number in range(WORKERS)]
        await asyncio.gather(*(play(notes, client, workflow, chance) for chance in chances))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
