"""Retry-After: what an endpoint or a tool asks for is recorded in the error, and the next try is not before it."""

from datetime import timedelta
from typing import Any

import pytest
from scenario import NOW, running

from perdure.actors import agents
from perdure.actors.inputs import ReportFailure
from perdure.actors.models import Endpoint, Models, RateLimited, Unavailable, unheard
from perdure.actors.retry_after import LONGEST, seconds_in
from perdure.actors.usage import unpaid
from perdure.actors.work import error_of
from perdure.definitions.agent_parts import Agent
from perdure.errors import RetryLater
from perdure.events.vocabulary import Error, NodeAttemptFailed, NodeScheduled, TimerArmed
from perdure.testing import Model, Reply, fails, play

AGENT = Agent(model="m", instructions="i")


async def ask(endpoint: Endpoint, name: str, agent: Agent, question: Any) -> Any:
    return await agents.ask(Models(endpoint), {}, name, agent, question, unheard, unpaid)


RETRY = {"attempts": 3, "delay": 10, "backoff": 1, "jitter": False}


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ({"retry_after": 90}, 90), ({"retry_after": 2.5}, 10), ({"retry_after": 1e300}, LONGEST),
        ({"retry_after": 10**400}, LONGEST), (None, 10), ("soon", 10), ({"retry_after": "90"}, 10),
        ({"retry_after": True}, 10), ({"retry_after": -90}, 10), ({"retry_after": None}, 10),
    ],
)  # fmt: skip
def test_the_next_try_is_not_before_what_the_error_asks_for_and_at_most_a_day_later(data: Any, seconds: float) -> None:
    error = Error("RateLimited", "slow down", data)
    given = running({"a": {"tool": "t", "retry": RETRY}}).when(ReportFailure("a", 1, error))
    given.events = given.events[1:]
    given.then(
        NodeScheduled("a", 1, {}),
        NodeAttemptFailed("a", 1, error),
        TimerArmed("retry/a", NOW + timedelta(seconds=seconds)),
    )


def test_the_delay_after_what_was_asked_for_is_its_own_again() -> None:
    asks = fails("RateLimited", data={"retry_after": 3600})
    played = play(
        {"name": "w", "nodes": {"a": {"tool": "t", "retry": RETRY}}}, tools={"t": [asks, fails("RateLimited"), 1]}
    )
    assert [(call.at - played.began).seconds for call in played.calls] == [0, 3600, 3610]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, 60), ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 -0000"}, 60), ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, LONGEST), ({}, None),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9),
    ],
)  # fmt: skip
def test_headers_say_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_in(headers, NOW) == seconds


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, Unavailable)])
async def test_an_endpoint_that_asks_to_wait_is_recorded_with_it(status: int, error: type[Exception]) -> None:
    busy = Reply("busy", status=status, headers={"Retry-After": "2"}, times=1)
    with Model([busy, Reply("Fine.")]) as model:
        with pytest.raises(error) as caught:
            await ask(Endpoint(model.base_url), "a", AGENT, {"message": "hello"})
        assert await ask(Endpoint(model.base_url), "a", AGENT, {"message": "hello"}) == "Fine."
    recorded = error_of(caught.value)
    assert (recorded.type, recorded.data) == (error.__name__, {"retry_after": 2.0})
    assert "busy" in recorded.message


async def test_an_endpoint_that_does_not_ask_to_wait_is_recorded_without() -> None:
    with Model([Reply("busy", status=429)]) as model, pytest.raises(RateLimited) as caught:
        await ask(Endpoint(model.base_url), "a", AGENT, {"message": "hello"})
    assert error_of(caught.value).data is None


class Odd(Exception):
    @property
    def retry_after(self) -> float:
        raise RuntimeError


class Busy(Exception):
    retry_after: Any = 5


class Text(Exception):
    retry_after = "5"


@pytest.mark.parametrize(
    ("error", "data"),
    [(RetryLater(5), {"retry_after": 5.0}), (Busy(), {"retry_after": 5.0}), (Odd(), None), (Text(), None)],
)
def test_what_a_tool_raises_may_ask_to_wait(error: Exception, data: Any) -> None:
    assert error_of(error).data == data
