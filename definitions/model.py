"""What a workflow is made of: the pydantic model that YAML, JSON and Python definitions become."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from perdure.definitions.agent_parts import Agent, Endpoint
from perdure.definitions.durations import Duration
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.nodes import Body
from perdure.definitions.parts import Concurrency, Limit, Name, Part, Quota, RuntimeEnv, Tool
from perdure.definitions.states import State

WORKFLOW_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Signal(Part):
    """A signal that executions take."""

    schema_: dict[str, Any] | None = Field(
        default=None, alias="schema", description="JSON Schema that its data keeps to; any JSON where absent."
    )


def _concurrency(value: Any) -> Any:
    return {"limit": value} if isinstance(value, int) and not isinstance(value, bool) else value


class Workflow(Part):
    """A workflow definition: agents, nodes or states, and the data that flows between them.

    Raises pydantic's ValidationError when built from parts that do not fit; `load` gives all problems with lines.
    """

    name: str = Field(pattern=WORKFLOW_NAME, description="The workflow's name.")
    kind: Literal["dag", "statechart"] = Field(default="dag", description="A graph of nodes, or a statechart.")
    description: str = Field(default="", description="What it is for.")
    include: list[str] = Field(
        default=[],
        description="Files, relative to this one, whose agents, endpoints, tools, limits and workflows are added.",
    )
    input: dict[str, Any] | None = Field(default=None, description="JSON Schema of the input; any JSON where absent.")
    tools: list[str | Tool] = Field(
        default=[], description="Python files with tools, relative to the definition; or tools with their schemas."
    )
    mcp: dict[Name, McpServer] = Field(
        default={}, description="MCP servers whose tools it calls as `server.tool`; the settings may name others."
    )
    runtime_env: RuntimeEnv | None = Field(
        default=None, description="What the processes of its tools have, where a tool or a node says nothing else."
    )
    agents: dict[Name, Agent] = Field(default={}, description="The agents that nodes may ask.")
    endpoints: dict[Name, Endpoint] = Field(
        default={}, description="Where models are reached, by name; those of the setting `endpoints` come after them."
    )
    workflows: dict[Name, "Workflow"] = Field(default={}, description="Workflows that nodes may run as children.")
    limits: dict[Name, Limit] = Field(default={}, description="Limits that nodes may take part in.")
    signals: dict[Name, Signal] | None = Field(
        default=None, description="The signals it takes, by name; any where absent."
    )
    search: dict[Name, str] = Field(
        default={}, description="Attributes for queries: expressions over the input by name, evaluated at the start."
    )
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that an execution may take.")
    concurrency: (
        Annotated[
            Concurrency, BeforeValidator(_concurrency, json_schema_input_type=Annotated[int, Field(ge=1)] | Concurrency)
        ]
        | None
    ) = Field(default=None, description="How many executions run at once: a number, or a mapping.")
    quota: Quota | None = Field(default=None, description="How many executions there may be, for each value of a key.")
    isolation: Literal["shared", "process"] = Field(
        default="shared", description="Whether executions share their host's process, or have a Ray actor each."
    )
    failure: Literal["fail_fast", "drain"] = Field(
        default="fail_fast", description="After a failure: stop what runs, or let it finish what does not depend on it."
    )
    nodes: Body = Field(default={}, description="The nodes of a DAG by name.")
    initial: list[str] | str | None = Field(default=None, description="Of a statechart: where it begins.")
    context: dict[Name, Any] = Field(default={}, description="Of a statechart: its data at the beginning.")
    events: dict[str, dict[str, Any] | None] | None = Field(
        default=None, description="Of a statechart: the events it takes, with the JSON Schema of their data."
    )
    states: dict[Name, State] = Field(default={}, description="The states of a statechart by name.")
    on_failure: Body = Field(default={}, description="Nodes that run when the execution fails.")
    on_cancel: Body = Field(default={}, description="Nodes that run when the execution is cancelled.")
    finally_: Body = Field(default={}, alias="finally", description="Nodes that run at the end in any case.")
    output: Any = Field(default=None, description="The execution's output; the outputs of its last nodes where absent.")
