"""What models took counts where their answer was of no use, too: in the log, in budgets, and in what is tried out."""

import json
from datetime import timedelta
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario import EXECUTION, NOW, Given, due, failure, running
from test_other_endpoints import chunks, response, server, whole
from what_if_lab import Calls, again, alike, moments, plan_of

from perdure.actors.agent_loop import spent
from perdure.actors.inputs import FireTimer, Input, ReportFailure, ReportSuccess
from perdure.actors.models import Asked, Endpoint, Models, Refused, ReplyTooLarge, Unavailable
from perdure.actors.replies import AskedFor, InvalidReply
from perdure.actors.replies import Reply as Said_Reply
from perdure.actors.transcripts import Said
from perdure.actors.usage import Usage, added
from perdure.definitions.agent_parts import Agent, Price
from perdure.definitions.agent_parts import Endpoint as Declared
from perdure.events.vocabulary import Error, ExecutionFailed, NodeAttemptFailed, NodeCharged, NodeScheduled, TimerArmed
from perdure.testing import Model, Reply

SIXTY: Usage = {"model": "m", "input": 50, "output": 10, "cost": 0.5}
REFUSED = Error("Refused", "the model refuses")
RETRY = {"attempts": 3, "delay": 10, "jitter": False}
COUNTED = {"prompt_tokens": 70, "completion_tokens": 7, "input_tokens": 70, "output_tokens": 7}


def agents(**budget: Any) -> dict[str, Any]:
    return {"a": {"model": "m", "instructions": "i", "tools": ["look"], "budget": budget}}


def looks(usage: Usage | None = None, turn: int = 0) -> ReportSuccess:
    said = Said_Reply("", [AskedFor("c", "look", "{}")])
    return ReportSuccess(f"n[{turn}]/model", 1, msgspec.to_builtins(said), usage)


def armed(given: Given, timer: str) -> TimerArmed:
    return TimerArmed(timer, given.now.timers[timer])


def agent_at_work(**budget: Any) -> Given:
    return running({"n": {"agent": "a", "retry": RETRY}}, agents=agents(**budget))


def test_a_failed_attempt_records_what_it_took_before_another_one_follows() -> None:
    at_work = running({"a": {"agent": "a", "retry": RETRY}}, agents={"a": {"model": "m", "instructions": "i"}})
    at_work.events.clear()
    at_work.when(ReportFailure("a", 1, REFUSED, SIXTY)).then(
        NodeCharged("a", 1, SIXTY),
        NodeAttemptFailed("a", 1, REFUSED),
        TimerArmed("retry/a", at_work.now.timers["retry/a"]),
    )
    at_work.when(due(at_work, "retry/a"), ReportSuccess("a", 2, "Hi.", SIXTY))
    assert at_work.now.nodes["a"].usage == {"model": "m", "input": 100, "output": 20, "cost": 1.0}


def test_a_failed_attempt_that_took_nothing_records_nothing_of_it() -> None:
    at_work = agent_at_work()
    at_work.events.clear()
    at_work.when(ReportFailure("n[0]/model", 1, Error("Unavailable", "no"))).then_types(NodeAttemptFailed, TimerArmed)


def test_attempts_in_vain_use_up_an_agents_budget() -> None:
    at_work = agent_at_work(tokens=100)
    at_work.when(ReportFailure("n[0]/model", 1, REFUSED, SIXTY))
    at_work.when(due(at_work, "retry/n[0]/model"))
    at_work.when(ReportSuccess("n[0]/model", 2, looks().output, SIXTY), ReportSuccess("n[0]/look", 1, "found"))
    assert failure(at_work).type == "OutOfTokens"
    assert failure(at_work).data == {"turns": 1, "tokens": 120, "cost": 1.0}


@pytest.mark.parametrize(
    ("budget", "error"), [({"tokens": 100}, "OutOfTokens"), ({"cost": 0.9}, "OutOfMoney")], ids=["tokens", "cost"]
)
def test_a_model_that_answers_in_vain_is_not_asked_again_beyond_the_budget(budget: Any, error: str) -> None:
    at_work = agent_at_work(**budget)
    at_work.when(ReportFailure("n[0]/model", 1, REFUSED, SIXTY))
    at_work.when(due(at_work, "retry/n[0]/model"), ReportFailure("n[0]/model", 2, REFUSED, SIXTY))
    assert failure(at_work).type == error
    assert failure(at_work).data == {"turns": 1, "tokens": 120, "cost": 1.0}


def test_what_an_attempt_took_is_not_forgotten_by_the_attempts_behind_it() -> None:
    at_work = agent_at_work()
    for attempt in (1, 2):
        at_work.when(ReportFailure("n[0]/model", attempt, REFUSED, SIXTY))
        at_work.when(due(at_work, "retry/n[0]/model"))
    assert at_work.events[-1] == NodeScheduled("n[0]/model", 3, {"agent": "a"})
    assert spent(at_work.now.nodes["n"]) == {"turns": 1, "tokens": 120, "cost": 1.0}


def usage(taken: int, given: int, cost: int | None) -> Usage:
    return {"model": "m", "input": taken, "output": given, **({} if cost is None else {"cost": cost})}


COUNT = st.integers(0, 10**6)
USAGES = st.none() | st.builds(usage, COUNT, COUNT, st.none() | COUNT)


@given(st.lists(USAGES, max_size=6))
def test_usages_add_up_to_all_of_them(usages: list[Usage | None]) -> None:
    known = [each for each in usages if each is not None]
    whole = reduce(added, usages, None)
    assert (whole is None) == (not known)
    if whole is not None:
        assert whole["input"] == sum(each["input"] for each in known)
        assert whole["output"] == sum(each["output"] for each in known)
        costs = [each["cost"] for each in known if "cost" in each]
        assert whole.get("cost") == (sum(costs) if costs else None)


@pytest.mark.parametrize("budget", [{"tokens": 100}, {"cost": 0.9}], ids=["tokens", "cost"])
@pytest.mark.parametrize("in_vain", [False, True])
async def test_an_agent_that_used_up_its_budget_does_so_again_where_it_is_tried_out(budget: Any, in_vain: bool) -> None:
    plan, made = plan_of({"n": {"agent": "a", "retry": RETRY}}, agents=agents(**budget)), Calls()
    first: list[tuple[float, Input]] = [(1, looks(SIXTY)), (2, ReportSuccess("n[0]/look", 1, 1)), (3, looks(SIXTY, 1))]
    if in_vain:
        again_at = FireTimer.of(EXECUTION, "retry/n[0]/model", NOW + timedelta(seconds=11))
        said = ReportSuccess("n[0]/model", 2, looks().output, SIXTY)
        first = [(1, ReportFailure("n[0]/model", 1, REFUSED, SIXTY)), (11, again_at), (12, said)]
    past = moments(plan, *first, (13, ReportSuccess("n[0]/look" if in_vain else "n[1]/look", 1, 1)))
    assert isinstance(past[-1].events[-1], ExecutionFailed)
    what_if, state = await again(plan, past, alike(plan), made.runner)
    assert (made.made, what_if.ran) == ([], [])
    assert state.outcome == past[-1].events[-1]


def asked(**parts: Any) -> Asked:
    return Asked("helper", "m", "Help.", [Said("user", "hi")], **parts)


async def charged(models: Models, error: type[Exception], agent: Agent | None = None) -> list[Usage]:
    found = list[Usage]()
    with pytest.raises(error):
        await models.ask({}, agent or Agent(model="m", instructions="i"), asked(), paid=found.append)
    return found


def with_usage(body: str) -> str:
    return json.dumps({**json.loads(body), "usage": COUNTED})


def streamed(body: str) -> str:
    """Return a streamed reply with a count at its end, as it is asked for."""
    return body.replace("data: [DONE]", f"data: {json.dumps({'choices': [], 'usage': COUNTED})}\n\ndata: [DONE]")


FILTERED = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "output": []}
UNREADABLE = {"tool_calls": [{"id": "x", "function": {"name": None, "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("body", "stream", "api", "error"),
    [
        (streamed(chunks({"refusal": "I will not."})), True, "chat", Refused),
        (streamed(chunks({"content": "I"}, end="content_filter")), True, "chat", Refused),
        (with_usage(whole(content=None, refusal="I will not.")), False, "chat", Refused),
        (with_usage(response(type="refusal", refusal="I will not.")), False, "responses", Refused),
        (with_usage(json.dumps(FILTERED)), False, "responses", Refused),
        (with_usage(whole(content="long " * 100)), False, "chat", ReplyTooLarge),
        (with_usage(response(type="output_text", text="long " * 100)), False, "responses", ReplyTooLarge),
        (with_usage(whole(**UNREADABLE)), False, "chat", InvalidReply),
    ],
    ids=["refused, streamed", "filtered, streamed", "refused", "refused, responses", "filtered, responses", "too large",
         "too large, responses", "unreadable"],
)  # fmt: skip
async def test_an_answer_of_no_use_is_counted_as_its_endpoint_counts(
    body: str, stream: bool, api: str, error: type[Exception]
) -> None:
    with server(body) as url:
        models = Models(Endpoint(url, stream=stream, api=api), prices={"m": Price(input=10, output=100)}, most=100)
        assert await charged(models, error) == [{"model": "m", "input": 70, "output": 7, "cost": 0.0014}]


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_what_was_said_up_to_a_break_is_guessed(api: str) -> None:
    with Model([Reply("word " * 100, fault="truncated")]) as model:
        (used,) = await charged(Models(Endpoint(model.base_url, api=api)), Unavailable)
    assert used["input"] == 2
    assert 10 < used["output"] < 125


async def test_what_an_endpoint_refuses_before_it_answers_is_free() -> None:
    for status, error in ((401, Refused), (503, Unavailable)):
        with Model([Reply("no", status=status)]) as model:
            assert await charged(Models(Endpoint(model.base_url)), error) == []


async def test_a_model_that_refuses_is_paid_beside_the_one_that_stands_in_for_it() -> None:
    found = list[Usage]()
    refused = with_usage(whole(content=None, refusal="I will not."))
    with server(refused) as url, Model([Reply("Hi.", usage=(5, 3))]) as second:
        own = {"other": Declared(base_url=second.base_url)}
        agent = {"model": "a", "instructions": "i", "fallback": [{"model": "b", "endpoint": "other"}]}
        models = Models(Endpoint(url, stream=False))
        await models.ask(own, Agent.model_validate(agent), asked(), paid=found.append)
    assert found == [{"model": "a", "input": 70, "output": 7}, {"model": "b", "input": 5, "output": 3}]
    assert added(*found) == {"model": "b", "input": 75, "output": 10}
