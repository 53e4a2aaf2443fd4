"""Secrets at the call: where their values come from, what a tool gets, and that nothing of them comes back."""

import json
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import EXECUTION, plan_of, start

from perdure import tool
from perdure.actors.execution import Execution
from perdure.actors.models import Models
from perdure.actors.secret_values import Secrets
from perdure.actors.surroundings import Surroundings
from perdure.actors.tools import locate
from perdure.actors.work import ToolFailed, call_in_thread, error_of, worker
from perdure.cluster.logs import record_of
from perdure.cluster.secret_sources import check_secrets, value_of
from perdure.definitions.plan import Plan
from perdure.errors import SecretMissing
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import Error, ExecutionFailed, ExecutionSucceeded, NodeSucceeded

TOKEN = 'k"1\\é/ +9%'
REFERENCE = {"secret": [{"name": "TOKEN"}]}


# --- where their values come from


def test_a_secret_is_a_variable_or_a_file_and_the_variable_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api_key").write_bytes(b"in a file\n\r\n")
    assert value_of(tmp_path, "api_key") == "in a file\n"
    monkeypatch.setenv("PERDURE_SECRET_API_KEY", "in a variable")
    assert value_of(tmp_path, "api_key") == "in a variable"


def test_a_missing_secret_says_both_ways_to_give_it(tmp_path: Path) -> None:
    (tmp_path / "EMPTY").touch()
    for folder in (None, tmp_path):
        with pytest.raises(
            SecretMissing, match=r"no secret 'key'.*set PERDURE_SECRET_KEY .* or put it into .*file"
        ) as said:
            value_of(folder, "key")
    assert str(tmp_path / "key") in str(said.value)
    with pytest.raises(SecretMissing, match=r"'EMPTY', or it is empty.*; there is no secret 'key'"):
        check_secrets({"key", "EMPTY"}, tmp_path)


def test_a_secret_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff")
    (tmp_path / "folder").mkdir()
    for name, why in (("key", "can't decode byte 0xff"), ("folder", "Is a directory")):
        with pytest.raises(SecretMissing, match=f"the secret '{name}' cannot be read from .*: .*{why}"):
            value_of(tmp_path, name)


# --- redaction


def seen(**values: str) -> Secrets:
    secrets = Secrets(values.__getitem__)
    for name in values:
        secrets.reveal({"secret": [{"name": name}]}, [""])
    return secrets


def in_url(_: str) -> str:
    return "k%221%5C%C3%A9%2F%20%2B9%25"


def in_unicode_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("form", [str, repr, json.dumps, in_unicode_json, in_url])
def test_every_usual_form_of_a_value_is_redacted(form: Callable[[str], str]) -> None:
    text = seen(TOKEN=TOKEN).redact(f"<{form(TOKEN)}>")
    assert text.replace('"', "").replace("'", "") == "<[secret TOKEN]>"


def test_redaction_reaches_keys_lists_and_numbers() -> None:
    given = {"k-9876": ["x9876", {"n": 9876, "f": 1.5, "t": True, "none": None}]}
    assert seen(PIN="9876").redact(given) == {
        "k-[secret PIN]": ["x[secret PIN]", {"n": "[secret PIN]", "f": 1.5, "t": True, "none": None}]
    }


def test_a_value_within_another_does_not_leave_the_rest_of_it() -> None:
    assert seen(A="abcd", B="abcdefgh").redact("abcdefgh abcd") == "[secret B] [secret A]"


def test_a_value_of_three_characters_is_not_redacted() -> None:
    assert seen(A="abc").redact("abc") == "abc"


# --- at the call


@tool(name="secrets.echo")
async def echo(token: str) -> Any:
    return {"got": token, token: [json.dumps({"t": token})]}


@tool(name="secrets.check")
def check(token: str, other: Any) -> bool:
    return token == f"Bearer {TOKEN}" and other == REFERENCE


@tool(name="secrets.fail")
def fail(token: str, pad: int = 0) -> None:
    raise PermissionError(f"{'x' * pad}{token!r} is refused")


class _NoTimers:
    async def arm(self, execution: str, lane: str, timer: str, due: datetime) -> None:
        raise AssertionError(timer)

    async def disarm(self, execution: str, timer: str) -> None:
        raise AssertionError(timer)


async def run(nodes: dict[str, Any], value: Any = None, secrets: Secrets | None = None) -> list[Any]:
    """Run to the end with the real worker; return the events."""
    plan, log = plan_of(nodes), MemoryLog()

    async def plan_for(digest: str) -> Plan:
        return plan

    secrets = secrets or Secrets({"TOKEN": TOKEN}.__getitem__)
    around = Surroundings(log, plan_for, worker(Models(), call_in_thread), _NoTimers(), secrets=secrets)
    command = start(plan, value)
    names = [node.target for node in plan.main.nodes.values()]
    command.tools.update(locate(names, [], None, shared=False))
    await Execution(EXECUTION, around).run(command)
    entries = [recorded async for recorded in log.read(EXECUTION)]
    assert not any(TOKEN.encode() in entry.data or b"1\\" in entry.data for entry in entries)
    return [item.event for recorded in entries for item in recorded.unpack()]


async def test_the_tool_gets_the_value_and_data_as_it_is() -> None:
    with_ = {"token": "Bearer ${{ secrets.TOKEN }}", "other": "${{ input }}"}
    events = await run({"a": {"tool": "secrets.check", "with": with_}}, REFERENCE)
    assert events[-1] == ExecutionSucceeded({"a": True})


async def test_the_value_is_redacted_in_the_result() -> None:
    events = await run({"a": {"tool": "secrets.echo", "with": {"token": "${{ secrets.TOKEN }}"}}})
    shown = "[secret TOKEN]"
    assert NodeSucceeded("a", 1, {"got": shown, shown: [json.dumps({"t": shown})]}) in events


@pytest.mark.parametrize("pad", [0, 9_995])
async def test_the_value_is_redacted_in_the_error_before_a_long_one_is_cut(pad: int) -> None:
    with_ = {"token": "${{ secrets.TOKEN }}", "pad": pad}
    ended = (await run({"a": {"tool": "secrets.fail", "with": with_}}))[-1]
    assert isinstance(ended, ExecutionFailed)
    assert ended.error.type == "PermissionError"
    assert ended.error.message.strip("x").startswith("'[sec")
    assert TOKEN[:3] not in ended.error.message


async def test_what_one_node_has_seen_is_redacted_in_what_another_gives() -> None:
    first = {"tool": "secrets.echo", "with": {"token": "${{ secrets.TOKEN }}"}}
    second = {"tool": "secrets.echo", "with": {"token": "${{ input }}"}, "needs": ["a"]}
    events = await run({"a": first, "b": second}, "k-999999999", Secrets(lambda _: "999999999"))
    (output,) = (each.output for each in events if isinstance(each, NodeSucceeded) and each.node == "b")
    assert output["got"] == "k-[secret TOKEN]"


async def test_an_attempt_without_its_secret_fails_with_the_mend() -> None:
    def look_up(name: str) -> str:
        return value_of(None, name)

    events = await run(
        {"a": {"tool": "secrets.echo", "with": {"token": "${{ secrets.NOWHERE }}"}}}, None, Secrets(look_up)
    )
    ended = events[-1]
    assert isinstance(ended, ExecutionFailed)
    assert ended.error.type == "SecretMissing"
    assert "PERDURE_SECRET_NOWHERE" in ended.error.message


def test_an_error_keeps_its_data_without_the_value() -> None:
    error = error_of(ToolFailed(Error("E", f"no {TOKEN}", {"sent": TOKEN})), seen(TOKEN=TOKEN).redact)
    assert error == Error("E", "no [secret TOKEN]", {"sent": "[secret TOKEN]"})


def test_a_log_record_of_any_library_holds_no_value(caplog: pytest.LogCaptureFixture) -> None:
    secrets = Secrets({"KEY": "value of a secret"}.__getitem__)
    secrets.value_of("KEY")
    log = logging.getLogger("some.library")
    with caplog.at_level(logging.DEBUG):
        log.info("GET %s -> %d", "https://x.org/?key=value%20of%20a%20secret", 200)
        log.debug("sent %r", {"Authorization": b"Bearer value of a secret"})
        log.error("cannot read it", exc_info=ValueError("value of a secret is no number"))
        log.info("nothing of it: %d", 7)
    assert caplog.messages == [
        "GET https://x.org/?key=[secret KEY] -> 200",
        "sent {'Authorization': b'Bearer [secret KEY]'}",
        "cannot read it",
        "nothing of it: 7",
    ]
    assert "ValueError: [secret KEY] is no number" in caplog.text
    assert "value of a secret" not in caplog.text
    assert record_of(caplog.records[2])["exception"] == "ValueError: [secret KEY] is no number"


# --- what is told while a text goes on


@given(st.lists(st.text("xyz", min_size=4, max_size=6), min_size=1, max_size=3), st.text("xyz", max_size=20))
def test_what_is_told_of_a_text_that_goes_on_stays_and_holds_no_secret(values: list[str], text: str) -> None:
    secrets = Secrets()
    for number, value in enumerate(values):
        secrets.hide(value, str(number))
    told = ""
    for end in range(len(text) + 1):
        now = secrets.redact_begun(text[:end])
        assert now.startswith(told)
        told = now
    assert secrets.redact(text).startswith(told)
    assert not [value for value in values if value in told]


def test_of_a_text_that_goes_on_only_an_end_with_which_a_secret_begins_is_held_back() -> None:
    secrets = Secrets()
    secrets.hide("a long key of many characters", "KEY")
    assert secrets.redact_begun("The first half is here,") == "The first half is here,"
    assert secrets.redact_begun("The key is a long ke") == "The key is "
