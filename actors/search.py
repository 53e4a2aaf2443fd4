"""Search attributes: what queries find an execution by, evaluated once, at its start."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from perdure.actors.draft import Draft
from perdure.actors.inputs import StartExecution
from perdure.actors.state import Started
from perdure.definitions.plan import Plan
from perdure.definitions.templates import render
from perdure.errors import BadInput, ExpressionError
from perdure.events.vocabulary import Error, ExecutionStarted

MAX_TEXT = 500
"""Characters of an attribute's text, or of a tag: it stands in an index."""
_MAX = 100  # attributes, or tags, of one execution
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def with_attributes(
    plan: Plan, execution: str, started: ExecutionStarted, at: datetime
) -> tuple[ExecutionStarted, Error | None]:
    """Return a start with the attributes of its definition, under those given; or the error that one of them made."""
    if not plan.search:
        return started, None
    try:
        own = attributes(plan, execution, started, at)
    except ExpressionError as error:
        return started, Error("ExpressionError", str(error))
    return replace(started, search={**own, **started.search}), None


def attributes(plan: Plan, execution: str, started: ExecutionStarted, at: datetime) -> dict[str, Any]:
    """Evaluate the attributes that a definition gives; what is null is left out. Raises ExpressionError."""
    names = Draft(plan, execution, Started(started), at).names("", ())
    found: dict[str, Any] = {}
    for name, template in plan.search.items():
        try:
            value = render(template, names)
        except ExpressionError as error:
            raise ExpressionError(f"search.{name}: {error}") from None
        if value is None:
            continue
        if why := unfit(value):
            raise ExpressionError(f"search.{name}: {why}")
        found[name] = value
    return found


def unfit(value: Any) -> str | None:
    """Say why a value cannot be an attribute; None where it can."""
    if not isinstance(value, str | int | float | bool):
        return f"an attribute is text, a number or a boolean, and this is {type(value).__name__}"
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"it has {len(value)} characters, and an attribute has {MAX_TEXT} at most"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number that can be compared"
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "it is a whole number of more than 64 bits"
    return None


def with_given(start: StartExecution, plan: Plan, search: Mapping[str, Any], tags: list[str]) -> StartExecution:
    """Return a start with attributes and tags; raise BadInput where these, or the definition's own, cannot be used."""
    for name, value in search.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput(f"search: {name!r} is no name; it has letters, digits and _, and no digit first")
        if why := unfit(value):
            raise BadInput(f"search.{name}: {why}")
    for tag in tags:
        if not isinstance(tag, str) or not 1 <= len(tag) <= MAX_TEXT or not tag.isprintable():
            raise BadInput(f"the tag {tag!r} must have 1 to {MAX_TEXT} printable characters")
    if len(search) > _MAX or len(tags) > _MAX:
        raise BadInput(f"an execution has at most {_MAX} attributes and {_MAX} tags")
    started = ExecutionStarted(start.workflow, start.digest, start.input, start.lane)
    try:
        attributes(plan, start.execution, started, datetime.now(UTC))
    except ExpressionError as error:
        raise BadInput(f"workflow {start.workflow!r} cannot be started with this input: {error}") from None
    return replace(start, search=dict(search), tags=tags)
