"""Nodes of kinds of the user's own: their config is checked, and their code awaited on the event loop."""

from typing import Any

from pydantic import ValidationError

from perdure.actors.context import Context
from perdure.actors.tools import to_json
from perdure.definitions.own_kinds import own_kind
from perdure.errors import BadInput


class Invalid(BadInput):
    """The config of a node does not fit its kind, now that its expressions are computed."""


async def execute(name: str, context: Context, given: Any) -> Any:
    """Do one attempt at a node and return its JSON output.

    Raises UnknownKind where the kind is not installed here, Invalid for a config that does not fit it, BadInput for
    a result that is no JSON, and whatever the code raises.
    """
    kind = own_kind(name)
    try:
        config = kind.config.model_validate(given)
    except ValidationError as error:
        # pydantic's words, which leave the values out: ours cut them, and half a secret is not redacted
        fields = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False))
        problems = "; ".join(f"{field}: {problem}" if field else problem for field, problem in fields)
        raise Invalid(f"the config of {context.node!r} does not fit node kind {name!r}: {problems}") from None
    return to_json(await kind.execute(context, config), f"the result of node kind {name!r}")
