"""What a workflow is made of: the pydantic model that YAML, JSON and Python definitions become."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from perdure.definitions.durations import Duration

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME)]


class Part(BaseModel):
    """The base of every part of a definition: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Retry(Part):
    """How often and how soon a failed attempt is tried again."""

    attempts: int = Field(default=3, ge=1, le=1000, description="All tries together, the first included.")
    delay: Duration = Field(default=1.0, description="Seconds before the second try.")
    backoff: float = Field(default=2.0, ge=1, description="The factor by which each further delay grows.")
    cap: Duration = Field(default=60.0, description="The longest delay in seconds.")
    jitter: bool = Field(
        default=True, description="Spread each delay over its upper half, so that retries do not march in step."
    )
    on: list[str] | None = Field(default=None, description="Error types to retry; all of them where absent.")


class Agent(Part):
    """A language model with instructions, reached through an OpenAI-compatible endpoint."""

    model: str = Field(description="The model's name at the endpoint; the setting PERDURE_MODEL overrides it.")
    instructions: str = Field(description="The system message.")
    output: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the reply; the reply is text where absent."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sampling temperature; the endpoint's default where absent."
    )


class _Node(Part):
    needs: list[str] = Field(default=[], description="Nodes that settle first; nodes named in expressions are added.")
    if_: bool | str | None = Field(
        default=None, alias="if", description="A condition; the node is skipped where it is false."
    )


class _Work(_Node):
    with_: dict[str, Any] = Field(
        default={}, alias="with", description="The node's input; `${{ }}` expressions are evaluated."
    )
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")
    run_on: Literal["loop", "actor"] | None = Field(
        default=None,
        description="Where it runs: the execution's event loop, or a node actor; chosen by kind where absent.",
    )


class AgentNode(_Work):
    """Asks an agent once; its reply is the node's output."""

    agent: str = Field(description="The name of an agent under `agents`.")


class ToolNode(_Work):
    """Calls a tool; what it returns is the node's output."""

    tool: str = Field(description="A registered name (`lookup_order`) or an import path (`package.module:function`).")


class SetNode(_Node):
    """Computes a value from expressions; the value is the node's output."""

    set: Any = Field(description="The value; `${{ }}` expressions in it are evaluated.")


def _kind_of(value: Any) -> str | None:
    keys = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, _Node) else ()
    kinds = [kind for kind in ("agent", "tool", "set") if kind in keys]
    return kinds[0] if len(kinds) == 1 else None


Node = Annotated[
    Annotated[AgentNode, Tag("agent")] | Annotated[ToolNode, Tag("tool")] | Annotated[SetNode, Tag("set")],
    Discriminator(
        _kind_of,
        custom_error_type="node_kind",
        custom_error_message="a node does exactly one thing: give it one of 'agent', 'tool' or 'set'",
    ),
]


class Workflow(Part):
    """A workflow definition: agents, nodes and the data that flows between them.

    Raises pydantic's ValidationError when built from parts that do not fit; `load` gives all problems with lines.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="The workflow's name.")
    kind: Literal["dag"] = Field(default="dag", description="A directed acyclic graph of nodes.")
    description: str = Field(default="", description="What it is for.")
    input: dict[str, Any] | None = Field(default=None, description="JSON Schema of the input; any JSON where absent.")
    tools: list[str] = Field(default=[], description="Python files with tools, relative to the definition.")
    agents: dict[Name, Agent] = Field(default={}, description="The agents that nodes may ask.")
    nodes: dict[Name, Node] = Field(min_length=1, description="The nodes by name.")
    output: Any = Field(default=None, description="The execution's output; the outputs of its last nodes where absent.")
