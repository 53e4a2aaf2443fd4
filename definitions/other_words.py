"""Words that other tools have for what definitions say, so that who comes from one of them is told ours."""

import re
from collections.abc import Iterable

from perdure.definitions.hints import closest, did_you_mean

_THEIRS = {
    "nodes": "steps tasks jobs stages activities",
    "do": "nodes steps tasks body iterator actions action",
    "needs": "depends_on depends dependencies after requires upstream run_after",
    "tool": "uses run src task function action call script command python http activity",
    "agent": "llm model prompt chat",
    "workflow": "subworkflow sub_workflow subflow flow child",
    "wait": "sleep delay pause wait_for_signal wait_for_event",
    "approval": "approve human human_task manual confirm",
    "switch": "choice branch",
    "foreach": "for_each map matrix each with_items",
    "loop": "while until repeat",
    "set": "value assign",
    "fail": "throw raise error",
    "with": "args arguments params parameters input inputs env kwargs",
    "branches": "steps tasks nodes",
    "if": "when condition guard cond",
    "when": "if condition",
    "then": "goto next target",
    "default": "else otherwise",
    "join": "trigger_rule",
    "catch": "on_error rescue except",
    "compensate": "undo rollback",
    "finally": "always ensure",
    "attempts": "max max_attempts retries limit count times",
    "delay": "interval interval_seconds wait initial_interval",
    "backoff": "backoff_rate multiplier factor",
    "cap": "max_delay max_interval",
    "items": "in list over of",
    "max_parallel": "parallel concurrency max_concurrency",
    "instructions": "prompt system system_prompt system_message",
    "output": "result outputs output_schema response_format data",
    "input": "inputs params parameters args arguments",
    "message": "error cause text",
    "type": "error parallel history final",
    "duration": "for seconds minutes",
    "signal": "event name",
    "initial": "start start_at",
    "target": "to go goto next",
    "on": "transitions error errors error_equals",
    "entry": "on_entry on_enter enter",
    "exit": "on_exit on_leave leave",
}
"""By our word, those of GitHub Actions, Step Functions, Airflow, Argo, Temporal and XState for it."""

_NOTES = {
    "schedule cron on triggers": "a definition does not say when it starts; let cron or a program start it",
    "env vars variables": "there are no variables here; what a workflow works on is its input",
    "secrets": "a secret is read where it is used, as `${{ secrets.NAME }}`",
    "next end": "there is no next node: the later one names the earlier one under 'needs', or reads its output",
    "type kind": "what a node does is its key, such as `tool: NAME` or `wait: 5m`",
    "continue_on_error ignore_errors allow_failure": "write `catch: [{output: null}]`",
}
"""By their words, what is to be said where none of ours is meant."""


def meant(word: str, known: Iterable[str]) -> str | None:
    """Return the known word for what another tool calls so, or else one that is spelt nearly so; None for neither."""
    known = list(known)
    return _ours(word, known) or closest(word, known)


def key_hint(word: str, known: Iterable[str]) -> str:
    """Return how to mend a key that is none of the known ones, as the end of a message; perhaps nothing."""
    known = list(known)
    ours = _ours(word, known)
    if ours is None and (note := next((note for words, note in _NOTES.items() if _plain(word) in words.split()), "")):
        return f"; {note}"
    return f"; did you mean {ours!r}?" if ours is not None else did_you_mean(word, known)


def _ours(word: str, known: list[str]) -> str | None:
    plain = _plain(word)
    found = (ours for ours, theirs in _THEIRS.items() if ours in known and plain in theirs.split())
    return plain if plain in known else next(found, None)


def _plain(word: str) -> str:
    """Return a word of camelCase or kebab-case in snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).replace("-", "_").lower()
