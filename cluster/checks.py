"""Everything that can be checked before a start, so that bad input is told at once and starts nothing."""

from typing import Any

from perdure.actors import tools
from perdure.actors.schedule_state import is_schedule, name_in
from perdure.cluster.secret_sources import check_secrets
from perdure.cluster.settings import Settings
from perdure.definitions.agent_plan import paid_by
from perdure.definitions.calls import agents_called, heartbeats, tools_called
from perdure.definitions.data_words import misfits
from perdure.definitions.loading import Definition
from perdure.definitions.model import Workflow
from perdure.definitions.placement import tools_elsewhere
from perdure.definitions.tool_rules import mcp_secrets, mcp_servers
from perdure.errors import BadInput, ModelUnavailable


def checked(
    settings: Settings,
    definition: Definition,
    value: Any,
    execution: str,
    priority: int = 5,
    *,
    sees_secrets: bool = False,
) -> tuple[Any, dict[str, str]]:
    """Return the input as JSON data and where each tool is.

    sees_secrets: this process, or its environment, is where the workflow runs, so that its secrets must be here.
    Raises BadInput, ToolNotFound, ModelUnavailable or SecretMissing naming what keeps the workflow from starting.
    """
    check_id(execution)
    if not isinstance(priority, int) or not 0 <= priority <= 9:
        raise BadInput(f"the priority {priority!r} is not a number within 0 to 9")
    value = checked_input(definition, value)
    workflow = definition.workflow
    check_endpoints(settings, workflow)
    check_prices(settings, workflow)
    if sees_secrets:
        check_secrets(definition.plan.secrets | mcp_secrets(workflow), settings.secrets_dir)
    elsewhere = tools_elsewhere(workflow)
    called, given = tools_called(workflow), workflow.tools
    places = tools.locate(
        called, given, definition.base,
        shared=True, elsewhere=elsewhere, installed=settings.tools, mcp=mcp_servers(workflow), reach=settings.reach,
    )  # fmt: skip
    for at, name in heartbeats(workflow):
        if name not in elsewhere and (why := tools.why_silent(name, places[name])):
            raise BadInput(f"{'.'.join(map(str, at))}: {why}")
    return value, places


def check_id(execution: str) -> None:
    """Raise BadInput when an execution cannot have this id."""
    if not isinstance(execution, str) or not 1 <= len(execution) <= 200 or not execution.isprintable():
        raise BadInput(f"the execution id {execution!r} must have 1 to 200 printable characters")
    check_no_schedule(execution)


def check_no_schedule(execution: str) -> None:
    """Raise BadInput where an id is a schedule's."""
    if is_schedule(execution):
        raise BadInput(f"the id {execution!r} is a schedule's; see it with: perdure schedule show {name_in(execution)}")


def checked_input(definition: Definition, value: Any) -> Any:
    """Return an input as JSON data; raise BadInput where it is none, or as `check_input` does."""
    value = tools.to_json(value, "the input")
    check_input(definition, value)
    return value


def check_input(definition: Definition, value: Any) -> None:
    """Raise BadInput with every place where the input breaks the workflow's input schema."""
    if definition.workflow.input is None:
        return
    if problems := misfits(definition.workflow.input, value, "input"):
        what = f"the input does not fit the input schema of workflow {definition.workflow.name!r}"
        raise BadInput(f"{what}: {'; '.join(problems)}{'; none was given' if value is None else ''}")


def check_endpoints(settings: Settings, workflow: Workflow) -> None:
    """Raise ModelUnavailable when agents could not reach their models."""
    for agent in workflow.agents.values():
        for name in (agent.endpoint, *(each.endpoint for each in agent.fallback)):
            if name is not None and name not in workflow.endpoints and name not in settings.endpoints:
                raise ModelUnavailable(
                    f"there is no endpoint {name!r}: declare it under 'endpoints', or in the setting of that name"
                )
    asked = agents_called(workflow)
    if any(agent.endpoint is None for name, agent in workflow.agents.items() if name in asked):
        check_endpoint(settings)
    for child in workflow.workflows.values():
        check_endpoints(settings, child)


def check_prices(settings: Settings, workflow: Workflow) -> None:
    """Raise BadInput where an agent has a budget of cost, and it is not known what a model costs that counts in it."""
    for name, agent in workflow.agents.items():
        paid = [workflow.agents[each] for each in paid_by(workflow.agents, name)] if agent.budget.cost else []
        for model in (model for each in paid for model in (each.model, *(other.model for other in each.fallback))):
            model = settings.model or model
            if model not in settings.prices:
                what = f"agent {name!r} has a budget of cost, and what model {model!r} costs is not known"
                raise BadInput(f'{what}; set PERDURE_PRICES=\'{{"{model}": {{"input": 0.25, "output": 2}}}}\'')
    for child in workflow.workflows.values():
        check_prices(settings, child)


def check_endpoint(settings: Settings) -> None:
    """Raise ModelUnavailable when agents that name no endpoint could not reach any model."""
    if not settings.openai_api_key and not settings.openai_base_url:
        raise ModelUnavailable(
            "this workflow asks agents, and no model endpoint is set. Either set OPENAI_API_KEY (and OPENAI_BASE_URL "
            "for an endpoint other than OpenAI's), or give scripted replies with --replies FILE"
        )
