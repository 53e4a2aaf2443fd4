"""The small parts that nodes, states and workflows share: names, conditions, retries, limits."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration, Written, duration_in_bounds

NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
EXPRESSION = r"\$\{\{"
Name = Annotated[str, Field(pattern=NAME)]


class Part(BaseModel):
    """The base of every part of a definition: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _condition(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    raise PydanticCustomError("condition", "a condition is an expression, or true or false; quote it")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Condition = Annotated[bool | str, BeforeValidator(_condition, json_schema_input_type=bool | str)]
"""A bare expression that gives true or false, with or without `${{ }}`."""

Names = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
"""A list of names; one name may stand for a list of one."""

_Some = Annotated[list[str], Field(min_length=1)]
SomeNames = Annotated[_Some, BeforeValidator(_listed, json_schema_input_type=str | _Some)]
"""The same, and not empty."""


def _duration_or_expression(value: Any) -> Any:
    return value if isinstance(value, str) and "${{" in value else duration_in_bounds(value)


DurationOrExpression = Annotated[
    float | str,
    BeforeValidator(
        _duration_or_expression, json_schema_input_type=Written | Annotated[str, Field(pattern=EXPRESSION)]
    ),
]
"""A duration, or text with a `${{ }}` expression that gives one."""


class Retry(Part):
    """How often and how soon a failed attempt is tried again."""

    attempts: int = Field(default=3, ge=1, le=1000, description="All tries together, the first included.")
    delay: Duration = Field(default=1.0, description="Seconds before the second try.")
    backoff: float = Field(default=2.0, ge=1, description="The factor by which each further delay grows.")
    cap: Duration = Field(default=60.0, description="The longest delay in seconds.")
    jitter: bool = Field(
        default=True, description="Spread each delay over its upper half, so that retries do not march in step."
    )
    on: Names | None = Field(default=None, description="Error types to retry; all of them where absent.")
    not_on: Names = Field(default=[], description="Error types that are never retried.")
    exhausted: Literal["fail", "pause"] = Field(
        default="fail",
        description="What follows the last try: the node fails, or the execution pauses for somebody to mend it.",
    )


class Resources(Part):
    """What a node actor takes of the Ray cluster; a tool that asks for anything runs in one."""

    num_cpus: float | None = Field(default=None, ge=0, description="CPUs.")
    num_gpus: float | None = Field(default=None, ge=0, description="GPUs.")
    memory: int | None = Field(default=None, ge=0, description="Bytes that Ray sets aside; no limit to the process.")
    custom: dict[str, float] = Field(default={}, description="Custom Ray resources by name.")
    accelerator_type: str | None = Field(default=None, description="Ray's name of the accelerator: `A100`, `L4`.")
    label_selector: dict[str, str] = Field(
        default={}, description="Labels of the Ray node that it must run on, with values as Ray reads them: `!spot`."
    )


class Pool(Part):
    """How many node actors of a tool there are, and how they take calls."""

    min: int = Field(default=0, ge=0, le=1000, description="How many are kept when idle, once it was called.")
    max: int | None = Field(
        default=None, ge=1, description="How many there are at most; what the cluster has room for."
    )
    idle: Duration | None = Field(
        default=None, description="Seconds without a call until one ends; the setting `node_actor_idle` where absent."
    )
    concurrency: int = Field(default=1, ge=1, le=1000, description="Calls that one of them takes at once.")
    grace: Duration = Field(default=5.0, description="Seconds between asking a call to stop and killing its process.")


class RuntimeEnv(Part):
    """What the process of a node actor has beyond its machine; a tool with one runs in a node actor."""

    working_dir: str | None = Field(
        default=None, description="A folder, relative to the definition: copied there, and where the tool runs."
    )
    py_modules: list[str] = Field(
        default=[], description="Packages and modules to import, as folders and files relative to the definition."
    )
    pip: list[str] = Field(default=[], description="Requirements that Ray installs there: `numpy==2.1.0`.")
    env_vars: dict[str, str] = Field(default={}, description="Environment variables; for secrets use `secrets.X`.")


class LimitUse(Part):
    """The use of a limit that is declared under `limits`."""

    name: str = Field(description="The limit's name.")
    cost: float | str = Field(default=1, description="How much of a rate is taken: a number or an expression.")
    spent: str | None = Field(
        default=None, description="How much it was in truth: an expression that reads `output`, and `usage` of a model."
    )
    key: str | None = Field(default=None, description="An expression, in the place of the limit's own `key`.")
    share: str | None = Field(default=None, description="An expression, in the place of the limit's own `share`.")


LimitUses = list[LimitUse] | LimitUse | str
"""Uses of limits; a name alone may stand for one."""


class Tool(Part):
    """A tool by name, with what is known of it: its code, and the schemas that calls are checked against."""

    name: str = Field(description="The name that nodes call it by.")
    call: str = Field(description="Where its code is: an import path such as `package.module:function`.")
    description: str = Field(default="", description="What it is for.")
    input: dict[str, Any] | None = Field(default=None, description="JSON Schema of its arguments, an object.")
    output: dict[str, Any] | None = Field(default=None, description="JSON Schema of what it returns.")
    resources: Resources | None = Field(default=None, description="What it asks of the cluster, unless a node says so.")
    pool: Pool | None = Field(default=None, description="How many node actors it has, unless a node says so.")
    runtime_env: RuntimeEnv | None = Field(
        default=None, description="What its process has, unless a node says so; else what the workflow says."
    )
    limit: LimitUses | None = Field(default=None, description="Limits that every call of it is under.")


AtLimit = Literal["queue", "reject", "cancel_older"]


class Given(Part):
    """How much a limit gives, for the whole cluster."""

    concurrency: int | None = Field(default=None, ge=1, description="How many hold it at once.")
    rate: float | None = Field(default=None, gt=0, description="How much may be taken per period.")
    per: Duration = Field(default=1.0, gt=0, description="The period in seconds.")
    burst: float | None = Field(default=None, gt=0, description="How much may be taken at once; the rate where absent.")
    at_limit: AtLimit = Field(default="queue", description="What happens to who comes when there is nothing left.")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="How much of it each value of `share` gets, against the others; 1 where absent."
    )


class Limit(Given):
    """A limit that nodes share, those of all workflows that name it, for the whole cluster."""

    key: str | None = Field(default=None, description="An expression; every value of it has a limit of its own.")
    share: str | None = Field(
        default=None, description="An expression; those who wait are served in turn by its values, however many wait."
    )
    of_cluster: bool = Field(
        default=False, description="How much it gives is said by the setting `limits` of the cluster, and not here."
    )


class Concurrency(Part):
    """How many executions of this workflow run at once."""

    limit: int = Field(ge=1, description="How many executions run at once.")
    key: str | None = Field(default=None, description="An expression; every value of it is counted on its own.")
    share: str | None = Field(
        default=None, description="An expression; those who wait are served in turn by its values, however many wait."
    )
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="How much of it each value of `share` gets, against the others; 1 where absent."
    )
    at_limit: AtLimit = Field(default="queue", description="What happens to who comes when as many run.")


class Quota(Part):
    """How many executions there may be; a start beyond that is refused with `QuotaExceeded`."""

    active: int | None = Field(default=None, ge=1, description="How many may be under way at once.")
    starts_per_minute: float | None = Field(default=None, gt=0, description="How many may begin in a minute.")
    key: str | None = Field(default=None, description="An expression; every value of it has a quota of its own.")
    name: Name | None = Field(
        default=None, description="Workflows whose quotas have this name share one; the workflow's own where absent."
    )


class ChildWorkflow(Part):
    """The workflow that a node starts as an execution of its own."""

    name: str = Field(
        description="A registered name (`billing`, `billing@3`, `billing@sha256:...`), a name under `workflows`, "
        "or a file relative to the definition (`./billing.yaml`)."
    )
    id: str | None = Field(
        default=None, description="The child's execution id, with `${{ }}`; made from the parent's where absent."
    )
    detach: bool = Field(default=False, description="Do not wait: the output is the child's id, at once.")
    on_parent_close: Literal["cancel", "terminate", "abandon"] = Field(
        default="cancel", description="What becomes of a running child when the parent ends."
    )


def _child(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Child = Annotated[ChildWorkflow, BeforeValidator(_child, json_schema_input_type=str | ChildWorkflow)]
"""A child workflow; its name alone may stand for it."""


class Fail(Part):
    """The error to fail with."""

    type: Name = Field(default="Failed", description="The error's type, which `catch` and `retry` match.")
    message: str = Field(description="What people read, with `${{ }}`.")
    data: Any = Field(default=None, description="What programs read, with `${{ }}`.")


def _fail(value: Any) -> Any:
    return {"message": value} if isinstance(value, str) else value


Failing = Annotated[Fail, BeforeValidator(_fail, json_schema_input_type=str | Fail)]
"""An error to fail with; its message may stand for it."""
