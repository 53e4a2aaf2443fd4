"""Agents: one question to a language model, or its next reply in a conversation."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from perdure.actors import memories
from perdure.actors.agent_tools import offered
from perdure.actors.models import Asked, Hear, Models, unheard
from perdure.actors.outside import Outside
from perdure.actors.replies import checked
from perdure.actors.transcripts import Conversation, Said, asked
from perdure.actors.usage import Paid
from perdure.definitions.agent_parts import Agent, Endpoint
from perdure.definitions.plan import Plan
from perdure.errors import BadInput, EnvironmentProblem


async def ask(
    models: Models, own: Mapping[str, Endpoint], name: str, agent: Agent, question: Any, hear: Hear, paid: Paid
) -> Any:
    """Return the agent's answer to one question: parsed and checked JSON where it has an output schema, otherwise text.

    own: the endpoints of the workflow. paid: told what was taken, also where this raises RateLimited, Unavailable,
    Refused or InvalidReply; retries are the workflow's affair, not the client's.
    """
    reply = await models.ask(own, agent, _request(name, agent, [asked(question)]), hear, paid)
    return reply.text if agent.output is None else checked(name, reply.text, agent.output)


async def take_turn(
    models: Models,
    plan: Plan,
    given: Conversation,
    places: Mapping[str, str],
    outside: Outside,
    hear: Hear,
    paid: Paid,
) -> Any:
    """Return the model's next reply in a conversation, as it is recorded. paid, raises: as of `ask`."""
    agent = plan.agents[given.agent]
    remembered: list[Said] = []
    if given.session is not None and given.upto:
        records = await memories.records_of(_sessions(models), given.session, given.upto)
        remembered = memories.remembered(records, agent.memory.tokens)
    mends = len(given.said) > 1 and given.said[-1].role == "user"  # nobody else speaks to it within a conversation
    tools = await offered(plan, agent, places, outside)
    request = _request(given.agent, agent, [*remembered, *given.said], tools=tools, mends=mends)
    return msgspec.to_builtins(await models.ask(plan.endpoints, agent, request, hear, paid))


async def remember(models: Models, plan: Plan, given: Conversation, does: str, key: str, paid: Paid) -> Any:
    """Recall what a session holds, or add to it what was said; `key` names the node's run. paid: as of `ask`."""
    log, agent = _sessions(models), plan.agents[given.agent]
    assert given.session is not None  # noqa: S101 (else there is no such step)
    if does == "remember":
        record = memories.record_of(given, key)
        said = msgspec.convert(models.redact(msgspec.to_builtins(record.said)), list[Said])
        return await memories.add(log, given.session, msgspec.structs.replace(record, said=said))

    async def summarise(text: str) -> str:
        name = agent.memory.summarise or ""
        answer = await ask(models, plan.endpoints, name, plan.agents[name], {"message": text}, unheard, paid)
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)

    summed_up = summarise if agent.memory.summarise is not None else None
    return await memories.recall(log, given.session, given.agent, agent.memory, key, summed_up)


def _sessions(models: Models) -> memories.SessionLog:
    if models.sessions is None:
        raise EnvironmentProblem("an agent has a session, and there is no store here that keeps it")
    return models.sessions


def _request(name: str, agent: Agent, said: list[Said], **more: Any) -> Asked:
    for each in said:
        _check_files(name, each.files)
    return Asked(
        name, agent.model, agent.instructions, said, schema=agent.output, temperature=agent.temperature,
        options=agent.options, **more,
    )  # fmt: skip


def _check_files(name: str, files: Any) -> None:
    """Raise BadInput where the files of a question are no references."""
    for each in files if isinstance(files, list) else [files]:
        named = [each.get("file"), each.get("url")] if isinstance(each, dict) else []
        if each is files or [type(which) for which in named if which] != [str]:
            what = f"agent {name!r}: 'files' is a list of what `client.upload` gave, or of mappings with a 'url'"
            raise BadInput(f"{what}, and not {json.dumps(each, ensure_ascii=False)[:100]}")
