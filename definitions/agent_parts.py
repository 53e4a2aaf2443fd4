"""Agents: a model with instructions, the tools that it may call, its limits, and where it is reached."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration
from perdure.definitions.parts import (
    Child,
    LimitUses,
    Names,
    Part,
    Pool,
    Resources,
    Retry,
    RuntimeEnv,
)

OFFERED = r"^[A-Za-z0-9_-]{1,64}$"
"""What a tool may be called towards a model."""

HAND_OFF = "hand_off_to_"
"""Before an agent's name: the tool by which another agent hands the conversation over to it."""

MODEL, RECALL, REMEMBER = "model", "recall", "remember"
"""The names of the nodes of a turn that are no calls of tools."""


def _tool(value: Any) -> Any:
    value = {"tool": value} if isinstance(value, str) else value
    if isinstance(value, dict) and len([key for key in ("tool", "agent", "workflow") if value.get(key)]) != 1:
        raise PydanticCustomError("one_call", "give it exactly one of 'tool', 'agent' or 'workflow'")
    return value


class ToolUndo(Part):
    """The call that undoes what an agent did with a tool; it gets the `input` and the `output` of that call."""

    tool: str = Field(description="A registered name or an import path.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")


class AgentTool(Part):
    """What an agent may call: a tool, another agent, or a workflow. A tool's name alone may stand for it."""

    tool: str | None = Field(default=None, description="A registered name or an import path.")
    agent: str | None = Field(default=None, description="An agent under `agents`, that answers as a tool does.")
    workflow: Child | None = Field(default=None, description="A workflow to run as an execution of its own.")
    name: str | None = Field(
        default=None, pattern=OFFERED, description="What the model calls it; made from its name where absent."
    )
    description: str = Field(default="", description="What the model reads of it; its own description where empty.")
    input: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of what the model gives it; its own where absent."
    )
    with_: dict[str, Any] = Field(
        default={}, alias="with", description="Arguments that it always gets and the model never sees, with `${{ }}`."
    )
    approve: str | bool | None = Field(
        default=None, description="`always`, or a condition on `args`: a person decides before the call is made."
    )
    approve_timeout: Duration | None = Field(
        default=None, gt=0, description="Seconds to wait for the decision, then it is a refusal; for ever where absent."
    )
    assignees: list[str] = Field(default=[], description="Who is asked; anybody where empty.")
    on_error: Literal["tell", "fail"] = Field(
        default="tell", description="After a failed call: the model is told, or the agent fails with the error."
    )
    compensate: ToolUndo | None = Field(default=None, description="The call that undoes it when a later one fails.")
    retry: Retry | None = Field(default=None, description="What happens after a failed attempt; one try where absent.")
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one attempt may take.")
    heartbeat: Duration | None = Field(default=None, gt=0, description="Seconds of silence that end an attempt.")
    queue_timeout: Duration | None = Field(default=None, gt=0, description="Seconds to wait for room in a node actor.")
    limit: LimitUses | None = Field(default=None, description="Limits that its calls are under.")
    priority: int | None = Field(default=None, ge=0, le=9, description="Higher goes first where capacity is short.")
    resources: Resources | None = Field(default=None, description="What its node actor takes of the cluster.")
    pool: Pool | None = Field(default=None, description="How many node actors do its work.")
    runtime_env: RuntimeEnv | None = Field(default=None, description="What the process of its node actor has.")
    run_on: Literal["loop", "actor"] | None = Field(default=None, description="Where it runs; chosen where absent.")

    @property
    def target(self) -> str:
        """The name of what it calls."""
        return self.tool or self.agent or (self.workflow.name if self.workflow is not None else "")

    @property
    def offered(self) -> str:
        """What the model calls it."""
        return self.name or re.sub(r"[^A-Za-z0-9_-]", "_", self.target)[-64:]

    @property
    def always_asks(self) -> bool:
        """Whether every call needs a person's approval."""
        return self.approve is True or self.approve == "always"


class Fallback(Part):
    """Another model that is asked where those before it do not answer."""

    model: str = Field(description="The model's name at its endpoint.")
    endpoint: str | None = Field(default=None, description="The endpoint; the agent's where absent.")


def _model(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class Budget(Part):
    """What an agent may use up, its helpers included; beyond it fails, and all that was said is kept."""

    turns: int = Field(default=16, ge=1, le=1000, description="Replies of the model; then `OutOfTurns`.")
    tokens: int | None = Field(default=None, ge=1, description="Tokens in and out; then `OutOfTokens`.")
    cost: float | None = Field(default=None, gt=0, description="Cost by the setting `prices`; then `OutOfMoney`.")
    time: Duration | None = Field(default=None, gt=0, description="Seconds, waiting included; then `OutOfTime`.")


class Memory(Part):
    """How much an agent remembers of a session, and what becomes of the rest."""

    tokens: int = Field(default=8000, ge=1, description="About how many tokens of what was said it is given.")
    summarise: str | None = Field(
        default=None, description="An agent that summarises what is older; forgotten where absent."
    )


class Endpoint(Part):
    """A server that speaks OpenAI's protocol: OpenAI's own, vLLM, Ollama, llama.cpp and others."""

    base_url: str | None = Field(default=None, description="Its URL, as a rule with `/v1`; OpenAI's own where absent.")
    key: str | None = Field(default=None, description="Its key: `${{ secrets.NAME }}`; none is sent where absent.")
    api: Literal["chat", "responses"] = Field(default="chat", description="Chat completions, or the Responses API.")
    structured: Literal["native", "prompted"] = Field(
        default="native", description="Whether it takes JSON Schemas for replies, or the model is asked in words."
    )
    stream: bool = Field(default=True, description="Whether replies are asked for as streams.")

    @property
    def secret(self) -> str | None:
        """The name of the secret that is its key."""
        found = _SECRET.fullmatch(self.key) if self.key is not None else None
        return found[1] if found is not None else None

    @model_validator(mode="after")
    def _key_is_a_secret(self) -> "Endpoint":
        if self.key is not None and self.secret is None:
            raise PydanticCustomError("key", "a key is a secret: write it as '${{ secrets.NAME }}'")
        return self


class Price(Part):
    """What a million tokens of a model cost, in whatever currency the budgets are."""

    input: float = Field(default=0.0, ge=0, description="Of what the model is given.")
    output: float = Field(default=0.0, ge=0, description="Of what it replies.")


_OURS = frozenset({"model", "messages", "input", "instructions", "tools", "stream", "stream_options"})

_SECRET = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


class Agent(Part):
    """A language model with instructions, reached through an OpenAI-compatible endpoint."""

    model: str = Field(description="The model's name at the endpoint; the setting PERDURE_MODEL overrides it.")
    instructions: str = Field(description="The system message.")
    description: str = Field(default="", description="What other agents read of it that may call or hand over to it.")
    output: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of the reply; the reply is text where absent."
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sampling temperature; the endpoint's default where absent."
    )
    endpoint: str | None = Field(
        default=None, description="A name under `endpoints`, here or in the settings; the default where absent."
    )
    fallback: list[Annotated[Fallback, BeforeValidator(_model, json_schema_input_type=str | Fallback)]] = Field(
        default=[], description="Models that are asked, in this order, where those before them do not answer."
    )
    timeout: Duration | None = Field(default=None, gt=0, description="Seconds that one reply of its model may take.")
    options: dict[str, Any] = Field(default={}, description="More of the request as it is: `top_p`, `max_tokens`, ...")
    tools: list[Annotated[AgentTool, BeforeValidator(_tool, json_schema_input_type=str | AgentTool)]] = Field(
        default=[], description="What it may call; the loop of replies and calls is recorded step by step."
    )
    handoffs: Names = Field(default=[], description="Agents that it may hand the conversation over to.")
    budget: Budget = Field(default=Budget(), description="What it may use up; with one it takes turns, as with tools.")
    repairs: int = Field(
        default=1, ge=0, le=5, description="How often a reply that breaks `output` is mended, in turns."
    )
    memory: Memory = Field(default=Memory(), description="What it remembers of a node's `session`.")
    limit: LimitUses | None = Field(default=None, description="Limits that every question to its model is under.")

    @field_validator("options")
    @classmethod
    def _are_further_ones(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OURS & options.keys()):
            what = f"{taken[0]!r} is not among the options: it is made of what the agent says itself"
            raise PydanticCustomError("option", "{what}", {"what": what})
        return options

    @property
    def takes_turns(self) -> bool:
        """Whether its work is a loop of recorded steps, and not one question and one reply."""
        mends = self.output is not None and self.repairs > 0
        return bool(self.tools or self.handoffs or mends or self.budget != Budget())
