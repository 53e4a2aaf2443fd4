"""A model asked, and what it took."""

from collections.abc import Mapping

from perdure.actors.models import Asked, Hear, Models, unheard
from perdure.actors.replies import Reply
from perdure.actors.usage import Bill, Usage
from perdure.definitions.agent_parts import Agent, Endpoint


async def reply_and_usage(
    models: Models, own: Mapping[str, Endpoint], agent: Agent, asked: Asked, hear: Hear = unheard
) -> tuple[Reply, Usage]:
    bill = Bill()
    reply = await models.ask(own, agent, asked, hear, bill.add)
    assert bill.total is not None
    return reply, bill.total
