"""What a tool is told about its call, and the heartbeats that it owes: on the loop and in threads."""

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from scenario import plan_of

from perdure import Context, tool
from perdure.actors.context import Beats, idempotency_key
from perdure.actors.models import Models
from perdure.actors.time_limits import HeartbeatLost, Timeout, alive
from perdure.actors.tools import call, find
from perdure.actors.work import ToolFailed, Work, call_in_thread, error_of, worker
from perdure.cluster.checks import checked
from perdure.cluster.settings import Settings
from perdure.definitions.loading import load
from perdure.errors import BadInput, DefinitionError
from perdure.events.vocabulary import Error
from perdure.testing import play
from perdure.tool_checks import code_findings

DEADLINE = datetime(2026, 1, 2, tzinfo=UTC)


@tool(name="limits.told")
async def told(word: str, this: Context) -> Any:
    return [word, this.execution, this.node, this.attempt, this.idempotency_key, this.deadline]


@tool(name="limits.told_in_thread")
def told_in_thread(this: "Context | None", word: str) -> Any:
    assert this is not None
    return [word, this.execution, this.node, this.attempt, this.idempotency_key, this.deadline]


@tool(name="limits.silent")
async def silent(this: Context) -> None:
    this.heartbeat({"done": 3})
    await asyncio.Event().wait()


@tool(name="limits.silent_in_thread")
def silent_in_thread(this: Context) -> None:
    this.heartbeat({"done": 3})
    threading.Event().wait(20)


@tool(name="limits.lively")
async def lively(this: Context, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        this.heartbeat()
        await asyncio.sleep(0.01)
    return "done"


@tool(name="limits.lively_in_thread")
def lively_in_thread(this: Context, seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        this.heartbeat()
        threading.Event().wait(0.01)
    return "done"


@tool(name="limits.odd")
async def odd(this: Context) -> None:
    this.heartbeat(object())


async def do(name: str, given: dict[str, Any] | None = None, **limits: Any) -> Any:
    """Make one call with the real worker."""
    plan = plan_of({"a": {"tool": f"limits.{name}", **limits}})
    work = Work("x-1", "a", plan.node("a"), 2, given or {}, plan, f"{__name__}:{name}", 1, DEADLINE)
    return await worker(Models(), call_in_thread)(work)


@pytest.mark.parametrize("name", ["told", "told_in_thread"])
async def test_a_tool_is_told_about_its_call_by_the_parameter_that_is_annotated(name: str) -> None:
    assert await do(name, {"word": "hello"}) == ["hello", "x-1", "a", 2, "x-1/a#2", "2026-01-02T00:00:00Z"]


async def test_the_context_is_never_an_argument() -> None:
    with pytest.raises(BadInput, match="gets its 'this' from perdure; take it out of 'with'"):
        await do("told", {"word": "hello", "this": 1})
    with pytest.raises(BadInput, match=r"^tool 'limits.told' was called with arguments that do not fit: word: Missing"):
        await do("told")


def test_the_idempotency_key_changes_only_once_the_node_was_undone() -> None:
    assert [idempotency_key("x", "a[1]/b", undone) for undone in range(3)] == ["x/a[1]/b", "x/a[1]/b#2", "x/a[1]/b#3"]


@pytest.mark.parametrize("name", ["silent", "silent_in_thread"])
async def test_a_tool_that_falls_silent_is_given_up_with_the_progress_that_it_told_last(name: str) -> None:
    with pytest.raises(HeartbeatLost) as caught:
        await do(name, heartbeat=0.05)
    assert error_of(caught.value) == Error("HeartbeatLost", "no heartbeat for 0.05 s", {"progress": {"done": 3}})


@pytest.mark.parametrize("name", ["lively", "lively_in_thread"])
async def test_a_tool_that_gives_heartbeats_may_take_longer_than_its_heartbeat(name: str) -> None:
    assert await do(name, {"seconds": 0.6}, heartbeat=0.4) == "done"


async def test_heartbeats_do_not_put_off_the_timeout() -> None:
    with pytest.raises(Timeout):
        await do("lively", {"seconds": 20}, heartbeat=0.5, timeout=0.1)


async def test_a_tool_may_give_heartbeats_where_nobody_waits_for_them() -> None:
    assert await do("lively", {"seconds": 0.01}) == "done"


async def test_a_progress_that_is_no_json_data_is_refused() -> None:
    with pytest.raises(BadInput, match="the progress of a heartbeat of 'a' is not JSON data"):
        await do("odd")


async def test_a_call_is_asked_again_only_when_its_silence_could_be_over() -> None:
    answers = [(0.0, None), (0.005, 1), (0.02, 2)]

    async def silence() -> tuple[float, Any]:
        return answers.pop(0)

    with pytest.raises(HeartbeatLost) as caught:
        await alive(asyncio.Event().wait(), 0.01, silence)
    assert (answers, caught.value.data) == ([], {"progress": 2})


def test_a_progress_stays_until_another_one_is_told() -> None:
    beats = Beats()
    heard = []
    for progress in (1, None, 2):
        beats.beat(progress)
        heard.append(beats.read()[1])
    assert heard == [1, 1, 2]


async def test_a_process_that_cannot_even_answer_is_not_alive() -> None:
    async def silence() -> tuple[float, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(HeartbeatLost):
        await alive(asyncio.Event().wait(), 0.01, silence)


async def test_a_timeout_error_of_the_tools_own_stays_its_own() -> None:
    async def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await alive(late(), 5, lambda: asyncio.sleep(0, (0.0, None)))


async def test_an_error_in_a_thread_comes_back_with_what_it_asks_to_wait() -> None:
    with pytest.raises(ToolFailed) as caught:
        await do("busy")
    assert caught.value.error == Error("RetryLater", "closed till noon", {"retry_after": 30.0})


@tool(name="limits.busy")
def busy() -> None:
    from perdure import RetryLater

    raise RetryLater(30, "closed till noon")


# What is checked before


def with_heartbeat(node: dict[str, Any]) -> Any:
    return load({"name": "w", "nodes": {"a": {**node, "heartbeat": "5s"}}})


@pytest.mark.parametrize("node", [{"set": 1}, {"wait": "1h"}, {"aggregate": {"items": "[1]", "how": "collect"}}])
def test_a_heartbeat_of_what_is_no_tool_is_refused(node: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="only a tool gives heartbeats; take it out, or use 'timeout'"):
        with_heartbeat(node)


def test_a_heartbeat_that_the_tool_cannot_give_is_refused_at_the_start_and_found_by_a_check_of_the_code() -> None:
    definition = with_heartbeat({"tool": f"{__name__}:busy"})
    with pytest.raises(BadInput, match=r"nodes.a.heartbeat: tool .* cannot give a heartbeat: annotate a parameter"):
        checked(Settings(), definition, None, "x")
    assert [each.path for each in code_findings(definition)] == [("nodes", "a", "heartbeat")]


def test_the_context_is_no_part_of_the_arguments_that_a_check_of_the_code_knows() -> None:
    good = with_heartbeat({"tool": f"{__name__}:told", "with": {"word": "x"}})
    assert list(code_findings(good)) == []
    assert checked(Settings(), good, None, "x")[1] == {f"{__name__}:told": f"{__name__}:told"}
    bad = with_heartbeat({"tool": f"{__name__}:told", "with": {"word": "x", "this": 1}})
    (finding,) = code_findings(bad)
    assert "takes no 'this'" in finding.message


def test_a_tool_that_is_played_is_told_about_its_call() -> None:
    node = {"tool": "t", "with": {"word": "hello"}, "deadline": "1d"}
    for real in (told, told_in_thread):
        played = play({"name": "w", "nodes": {"a": node}}, tools={"t": real})
        assert played.output == {"a": ["hello", "played", "a", 1, "played/a", "2026-01-02T00:00:00Z"]}


def test_a_tool_that_is_called_by_hand_takes_a_context_made_by_hand() -> None:
    context = Context("x", "a", 1, "x/a")
    assert told_in_thread(context, "hello") == ["hello", "x", "a", 1, "x/a", None]
    assert call(find(f"{__name__}:told"), {"word": "hello"}, context)[:3] == ["hello", "x", "a"]
