"""What tools reach outside the workflow, as the operator's settings say: networks, databases, mail, MCP servers."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from perdure.actors.secret_values import Secrets
from perdure.definitions.mcp_servers import McpServer
from perdure.definitions.parts import Part
from perdure.definitions.secret_references import pointers_in, revealed
from perdure.definitions.templates import compile_template, render

if TYPE_CHECKING:
    from nats.aio.client import Client as Nats

    from perdure.actors.mcp_pool import McpPool


class Database(Part):
    """A database that the tool `sql` may ask."""

    url: str = Field(description="SQLAlchemy's URL, for SQLite or PostgreSQL, with `${{ secrets.NAME }}`.")
    write: bool = Field(default=False, description="Whether calls with `write: true` may change it.")


class Smtp(Part):
    """The server that the tool `email` sends by."""

    host: str = Field(description="The server.")
    port: int = Field(default=587, ge=1, le=65535, description="Its port.")
    tls: str = Field(default="starttls", pattern="^(starttls|implicit|none)$", description="How it is encrypted.")
    sender: str = Field(description="The address that mails come from.")
    user: str | None = Field(default=None, description="The user to log in as.")
    password: str | None = Field(default=None, description="The password, as `${{ secrets.NAME }}`.")
    ca_file: str | None = Field(default=None, description="A file of certificates to trust; the system's where absent.")


class Reach(Part):
    """What tools may reach; nothing private where a field is absent."""

    http_allow: tuple[str, ...] = ()
    databases: dict[str, Database] = Field(default={})
    smtp: Smtp | None = None
    mcp: dict[str, McpServer] = Field(default={})


class Outside:
    """What a call reaches the outside with. It travels to other processes without its connections and values.

    nats: the connection of the process; None where it has none. mcp: its pool of MCP connections, as nats.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        secrets: Secrets | None = None,
        nats: "Nats | None" = None,
        mcp: "McpPool | None" = None,
    ) -> None:
        self.reach = reach or Reach()
        self.secrets = secrets or Secrets()
        self.nats, self.mcp = nats, mcp

    def reveal(self, text: Any) -> Any:
        """Return text, or data of texts, with the values of the secrets that are named in it. Raises SecretMissing."""
        template = compile_template(text)
        return revealed(render(template, {}), list(pointers_in(template)), self.secrets.value_of)

    def __reduce__(self) -> tuple[Any, ...]:
        return Outside, (self.reach, self.secrets)
