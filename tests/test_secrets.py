"""Secrets: references in the log, values at the call only, and nothing of them in what comes back."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import BOOM, EXECUTION, Given, due, plan_of, running, start

from perdure import tool
from perdure.actors.agents import Endpoint
from perdure.actors.evolve import Folded
from perdure.actors.execution import Execution, Surroundings
from perdure.actors.inputs import Recover, ReportFailure, ReportSuccess
from perdure.actors.secret_values import Secrets
from perdure.actors.snapshot import pack, unpack
from perdure.actors.tools import locate
from perdure.actors.work import call_in_thread, recorded, worker
from perdure.cluster.secret_sources import check_secrets, value_of
from perdure.definitions.loading import load
from perdure.definitions.plan import Plan
from perdure.definitions.secret_references import pointers_in, revealed
from perdure.definitions.templates import compile_template, render
from perdure.errors import DefinitionError, SecretMissing
from perdure.events.memory_log import MemoryLog
from perdure.events.vocabulary import Error, ExecutionFailed, ExecutionSucceeded, NodeScheduled, NodeSucceeded

TOKEN = 'k"1\\é/ +9%'
REFERENCE = {"secret": [{"name": "TOKEN"}]}
CALL = {"tool": "t", "with": {"auth": "Bearer ${{ secrets.TOKEN }}", "user": "${{ input }}"}}
BEARER = {"secret": ["Bearer ", {"name": "TOKEN"}]}


def scheduled(given: Given) -> list[NodeScheduled]:
    return [event for event in given.events if isinstance(event, NodeScheduled)]


# --- what is recorded


def test_a_secret_is_recorded_as_the_reference_to_it_and_where_that_stands() -> None:
    assert scheduled(running({"a": CALL}, "ann")) == [NodeScheduled("a", 1, {"auth": BEARER, "user": "ann"}, ["/auth"])]


def test_text_and_values_around_a_secret_are_recorded_in_order() -> None:
    with_ = {"url": "https://${{ input.user }}:${{ secrets.PW }}@${{ input.host }}/${{ secrets.PATH }}"}
    given = running({"a": {"tool": "t", "with": with_}}, {"user": "ann", "host": "h"})
    assert scheduled(given)[0].input["url"] == {"secret": ["https://ann:", {"name": "PW"}, "@h/", {"name": "PATH"}]}


def test_data_that_looks_like_a_reference_is_data() -> None:
    call = scheduled(running({"a": CALL}, REFERENCE))[0]
    assert call.secrets == ["/auth"]
    seen = revealed(call.input, call.secrets, {"TOKEN": "t-1"}.__getitem__)
    assert seen == {"auth": "Bearer t-1", "user": REFERENCE}


def test_a_reference_that_another_node_reads_is_data_there() -> None:
    given = running({"a": CALL, "b": {"tool": "t", "with": {"all": "${{ nodes.a }}"}}}, "ann")
    given.when(ReportSuccess("a", 1, None))
    all_of_a = {"output": None, "status": "succeeded", "input": {"auth": BEARER, "user": "ann"}}
    assert scheduled(given)[1] == NodeScheduled("b", 1, {"all": all_of_a}, [])


def test_a_retry_and_a_new_owner_know_where_the_references_are() -> None:
    given = running({"a": {**CALL, "retry": {"attempts": 2, "delay": 1}}}, "ann").when(Recover())
    assert given.now.running["a"].secrets == ["/auth"]
    given.when(ReportFailure("a", 1, BOOM))
    given.when(due(given, "retry/a"))
    assert scheduled(given)[1] == NodeScheduled("a", 2, {"auth": BEARER, "user": "ann"}, ["/auth"])


def test_a_snapshot_keeps_where_the_references_are() -> None:
    data = pack(Folded(running({"a": CALL}, "ann").state))
    assert data is not None
    saved = unpack(data)
    assert saved is not None
    assert saved[0].state.running["a"].secrets == ["/auth"]  # type: ignore[union-attr]


def test_a_compensation_may_name_secrets_and_gets_those_of_what_it_undoes() -> None:
    nodes = {
        "a": {**CALL, "compensate": {"tool": "u"}},
        "b": {"tool": "t", "needs": ["a"], "compensate": {"tool": "u", "with": {"key": "${{ secrets.K }}"}}},
        "c": {"tool": "t", "needs": ["b"]},
    }
    given = running(nodes, "ann").when(ReportSuccess("a", 1, 1), ReportSuccess("b", 1, 2), ReportFailure("c", 1, BOOM))
    given.when(ReportSuccess("b~undo", 1, None))
    assert scheduled(given)[-2:] == [
        NodeScheduled("b~undo", 1, {"key": {"secret": [{"name": "K"}]}}, ["/key"]),
        NodeScheduled("a~undo", 1, {"input": {"auth": BEARER, "user": "ann"}, "output": 1}, ["/input/auth"]),
    ]


def test_the_items_of_an_aggregate_are_data_whatever_stands_under_their_name() -> None:
    with_ = {"items": "${{ secrets.TOKEN }}", "key": "${{ secrets.TOKEN }}"}
    node = {"aggregate": {"items": "input", "tool": "t"}, "with": with_}
    assert scheduled(running({"a": node}, REFERENCE["secret"])) == [
        NodeScheduled("a", 1, {"items": REFERENCE["secret"], "key": REFERENCE}, ["/key"])
    ]


def test_the_single_call_of_a_foreach_may_name_secrets() -> None:
    node = {"foreach": {"items": [1], "as": "n"}, "tool": "t", "with": {"n": "${{ n }}", "k": "${{ secrets.TOKEN }}"}}
    assert scheduled(running({"a": node})) == [NodeScheduled("a[0]/do", 1, {"n": 1, "k": REFERENCE}, ["/k"])]


LEAVES = st.sampled_from(["${{ secrets.T }}", "plain", "a/b~1", "", 7, None])
DATA = st.recursive(
    LEAVES | st.just({"secret": [{"name": "T"}]}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "/", "~", "~1", "0", ""]), inner),
    max_leaves=12,
)


@given(DATA)
def test_exactly_the_references_of_the_template_are_resolved(data: Any) -> None:
    template = compile_template(data)
    rendered = render(template, {})
    assert revealed(rendered, pointers_in(template), lambda name: f"<{name}>") == in_place(data)
    assert rendered == render(template, {})  # the recorded form is left as it is


def in_place(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: in_place(item) for key, item in data.items()}
    if isinstance(data, list):
        return [in_place(item) for item in data]
    return "<T>" if data == "${{ secrets.T }}" else data


# --- where they may stand


@pytest.mark.parametrize(
    "text", ["secrets.A + 'x'", "secrets['A']", "[secrets.A]", "secrets", "secrets.A.b", "secrets.A if input else 'x'"]
)
def test_a_secret_stands_alone(text: str) -> None:
    with pytest.raises(DefinitionError, match="a secret stands alone"):
        load({"name": "w", "nodes": {"a": {"tool": "t", "with": {"k": f"${{{{ {text} }}}}"}}}})
    state = {"invoke": {"tool": "t", "with": {"k": f"${{{{ {text} }}}}"}, "on_done": "end"}}
    with pytest.raises(DefinitionError, match="a secret stands alone"):
        load({"name": "w", "kind": "statechart", "states": {"s": state, "end": {"type": "final"}}})


CHILD = {"workflow": "w", "with": {"k": "${{ secrets.A }}"}}


@pytest.mark.parametrize("node", [CHILD, {**CHILD, "foreach": {"items": [1]}}, {"tool": "t", "compensate": CHILD}])
def test_a_secret_does_not_travel_to_another_workflow(node: dict[str, Any]) -> None:
    with pytest.raises(
        DefinitionError, match="would be recorded as another workflow's input; read it in that workflow"
    ):
        load({"name": "v", "nodes": {"a": node}})


def test_a_secret_does_not_travel_from_a_state_to_another_workflow() -> None:
    states = {"s": {"invoke": {**CHILD, "on_done": "end"}}, "end": {"type": "final"}}
    with pytest.raises(DefinitionError, match="would be recorded as another workflow's input"):
        load({"name": "v", "kind": "statechart", "states": states})


def test_a_plan_knows_all_secrets_that_its_calls_read() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"tool": "t", "with": {"k": [f"x ${{{{ secrets.{name} }}}}"]}}

    nodes = {
        "a": {**call("A"), "compensate": call("B")},
        "c": {"foreach": {"items": [1]}, "do": {"d": call("C")}},
        "w": {"workflow": "w"},
    }
    plan = plan_of(nodes, workflows={"w": {"name": "w", "nodes": {"a": call("D")}}}, **{"finally": {"f": call("E")}})
    assert plan.secrets == {"A", "B", "C", "D", "E"}


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
    around = Surroundings(log, plan_for, worker(Endpoint(), call_in_thread), _NoTimers(), secrets=secrets)
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
    error = recorded(Error("E", f"no {TOKEN}", {"sent": TOKEN}), seen(TOKEN=TOKEN).redact)
    assert error == Error("E", "no [secret TOKEN]", {"sent": "[secret TOKEN]"})
