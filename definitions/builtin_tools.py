"""The tools of perdure's own: what a definition gives them, and what they return. Their code is in `actors`."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from perdure.definitions.durations import Duration
from perdure.definitions.parts import Names, Part, SomeNames
from perdure.definitions.parts import Tool as Declared

Scalar = str | int | float | bool
CallTimeout = Annotated[Duration, Field(gt=0, le=600)]
"""Seconds that one call may take."""


class Auth(Part):
    """How a request says who asks: a bearer token, or a user with a password."""

    bearer: str | None = Field(default=None, description="A token; give it as `${{ secrets.NAME }}`.")
    user: str | None = Field(default=None, description="A user's name.")
    password: str | None = Field(default=None, description="The user's password; give it as `${{ secrets.NAME }}`.")

    @model_validator(mode="after")
    def _is_one(self) -> "Auth":
        if (self.bearer is None) == (self.user is None) or (self.password is not None and self.user is None):
            raise PydanticCustomError("auth", "give 'bearer', or 'user' with 'password'")
        return self


class HttpCall(Part):
    """A request by HTTP."""

    url: str = Field(description="The address, http:// or https://.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        default="GET", description="The method."
    )
    headers: dict[str, str] = Field(default={}, description="Headers; not sent on when it leads to another server.")
    query: dict[str, Scalar | list[Scalar]] = Field(default={}, description="What is added to the address after '?'.")
    json_: Any = Field(default=None, alias="json", description="The body, sent as JSON.")
    text: str | None = Field(default=None, description="The body as text, in place of 'json'.")
    form: dict[str, Scalar] | None = Field(default=None, description="The body as a form, in place of 'json'.")
    auth: Auth | None = Field(default=None, description="Who asks.")
    timeout: CallTimeout = Field(default=30.0, description="Seconds for everything, redirects too; at most 600.")
    max_bytes: int = Field(
        default=1_000_000, ge=0, le=50_000_000, description="Bytes that the answer's body may have, unpacked."
    )
    redirects: int = Field(default=5, ge=0, le=20, description="Redirects that are followed.")
    errors: bool = Field(default=True, description="Whether a status of 400 or more is an error, or a result.")

    @model_validator(mode="after")
    def _has_one_body(self) -> "HttpCall":
        bodies = [name for name, each in (("json", self.json_), ("text", self.text), ("form", self.form)) if each]
        if len(bodies) > 1:
            raise PydanticCustomError(
                "bodies", "a request has one body, not {bodies}", {"bodies": " and ".join(bodies)}
            )
        return self


class HttpReply(Part):
    """What a server answered."""

    status: int = Field(description="The status.")
    url: str = Field(description="The address that answered, after redirects, without what stood after '?'.")
    headers: dict[str, str] = Field(description="The headers but cookies, their names in small letters.")
    json_: Any = Field(default=None, alias="json", description="The body, where it is JSON.")
    text: str | None = Field(default=None, description="The body, where it is text.")
    base64: str | None = Field(default=None, description="The body in base64, where it is neither.")


class SqlCall(Part):
    """One statement for a database."""

    database: str = Field(description="The database's name in the setting `databases`.")
    query: str = Field(min_length=1, description="One statement; values stand in it as `:name`, from 'params'.")
    params: dict[str, Any] = Field(default={}, description="The values by name, each bound and never part of the text.")
    write: bool = Field(default=False, description="Whether it may change data; the database's setting must allow it.")
    max_rows: int = Field(default=1000, ge=1, le=100_000, description="Rows that are returned at most.")
    timeout: CallTimeout = Field(default=30.0, description="Seconds that it may take; at most 600.")


class SqlReply(Part):
    """What a statement gave."""

    rows: list[dict[str, Any]] = Field(description="The rows.")
    truncated: bool = Field(description="Whether there were more.")
    changed: int = Field(description="How many rows were changed; 0 of a query.")


class EmailCall(Part):
    """A mail by SMTP."""

    to: SomeNames = Field(description="Who gets it.")
    subject: str = Field(description="The subject, one line.")
    text: str = Field(default="", description="The text.")
    html: str | None = Field(default=None, description="The same as HTML.")
    cc: Names = Field(default=[], description="Who gets a copy.")
    bcc: Names = Field(default=[], description="Who gets a copy that nobody sees.")
    reply_to: str | None = Field(default=None, description="Where answers go.")
    timeout: CallTimeout = Field(default=60.0, description="Seconds that it may take; at most 600.")


class EmailReply(Part):
    """What became of a mail."""

    message_id: str = Field(description="Its id, the same for every attempt of the node.")
    refused: dict[str, str] = Field(description="Those that the server refused, with its reason.")


class NatsPublish(Part):
    """A message on NATS."""

    subject: str = Field(description="The subject; not one of perdure's own.")
    data: Any = Field(default=None, description="The message: text as it is, anything else as JSON.")
    headers: dict[str, str] = Field(default={}, description="Headers.")
    stream: bool = Field(default=False, description="Whether a JetStream stream must have stored it.")
    timeout: CallTimeout = Field(default=10.0, description="Seconds that it may take.")


class NatsPublished(Part):
    """What became of a message."""

    stream: str | None = Field(default=None, description="The stream that stored it, where that was asked for.")
    sequence: int | None = Field(default=None, description="Its place there.")
    duplicate: bool = Field(default=False, description="Whether an earlier attempt had stored it.")


class NatsRequest(Part):
    """A question on NATS."""

    subject: str = Field(description="The subject; not one of perdure's own.")
    data: Any = Field(default=None, description="The message: text as it is, anything else as JSON.")
    headers: dict[str, str] = Field(default={}, description="Headers.")
    timeout: CallTimeout = Field(default=10.0, description="Seconds to wait for the answer.")


class NatsReply(Part):
    """An answer on NATS."""

    json_: Any = Field(default=None, alias="json", description="The answer, where it is JSON.")
    text: str | None = Field(default=None, description="The answer, where it is other text.")
    base64: str | None = Field(default=None, description="The answer in base64, where it is no text.")
    headers: dict[str, str] = Field(default={}, description="Its headers.")


@dataclass(frozen=True)
class Builtin:
    """A tool of perdure's own: where its code is, and the models of what it takes and gives."""

    name: str
    place: str
    description: str
    takes: type[BaseModel]
    gives: type[BaseModel]

    @cached_property
    def declared(self) -> Declared:
        """What a definition would say of it."""
        schemas = (
            self.takes.model_json_schema(), self.gives.model_json_schema(mode="serialization")
        )  # fmt: skip
        return Declared(
            name=self.name, call=self.place, description=self.description, input=schemas[0], output=schemas[1]
        )


BUILTINS = {
    name: Builtin(name, f"perdure.actors.{place}", description, takes, gives)
    for name, place, description, takes, gives in (
        ("http", "http_tool:http", "Ask a server by HTTP.", HttpCall, HttpReply),
        ("sql", "sql_tool:sql", "Ask a database by SQL.", SqlCall, SqlReply),
        ("email", "email_tool:email", "Send a mail by SMTP.", EmailCall, EmailReply),
        ("nats.publish", "nats_tools:publish", "Publish a message on NATS.", NatsPublish, NatsPublished),
        ("nats.request", "nats_tools:request", "Ask on NATS, and wait for the answer.", NatsRequest, NatsReply),
    )
}
