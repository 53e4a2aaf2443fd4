"""The tables of the read models. Whoever changes one adds a migration, and raises the version of its projection."""

from typing import Any

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, UniqueConstraint, false

from perdure.projections.types import Json, Moment, Position, Short, Words

SCHEMA = "0004"
"""The newest migration."""

metadata = MetaData()
_BY_KEY: dict[str, Any] = {"sqlite_with_rowid": False}  # one tree instead of two

tracking = Table(
    "tracking",
    metadata,
    Column("projection", Words, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("log", Words, nullable=False),
    Column("position", Position, nullable=False),
    **_BY_KEY,
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("projection", Words, primary_key=True),
    Column("position", Position, primary_key=True),
    Column("execution", Words, nullable=False),
    Column("at", Moment, nullable=False),
    Column("error", Words, nullable=False),
    **_BY_KEY,
)

executions = Table(
    "executions",
    metadata,
    Column("began", Position, primary_key=True, autoincrement=False),  # the position of its start: newer ones have more
    Column("id", Words, nullable=False),
    Column("workflow", Words, nullable=False),
    Column("digest", Words, nullable=False),
    Column("status", Words, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("parent", Words),
    Column("parent_node", Words),
    Column("forked_from", Words),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("changed_at", Moment, nullable=False),
    Column("failed_node", Words),
    Column("error_type", Short),
    Column("error_message", Words),
    Column("compensating", Boolean, nullable=False),  # these three: what shows again when what hides it is over
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("queued", Boolean, nullable=False, server_default=false()),
    Column("search", Json, nullable=False),
    Column("tags", Json, nullable=False),
    UniqueConstraint("id", name="executions_id"),
    # Each ends with the key, so that its rows come in the order in which they are listed.
    Index("executions_workflow", "workflow", "began"),
    Index("executions_status", "status", "began"),
    Index("executions_started", "started_at", "began"),
    Index("executions_ended", "ended_at", "began"),
    Index("executions_priority", "priority", "began"),
    Index("executions_digest", "digest", "began"),
    Index("executions_parent", "parent", "began"),
    Index("executions_forked_from", "forked_from", "began"),
    Index("executions_error", "error_type", "began"),
)

attributes = Table(
    "attributes",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("name", Words, primary_key=True),
    Column("began", Position, nullable=False),
    Column("text", Words),
    Column("number", Float),
    Column("truth", Boolean),
    Index("attributes_text", "name", "text", "began"),
    Index("attributes_number", "name", "number", "began"),
    Index("attributes_truth", "name", "truth", "began"),
    **_BY_KEY,
)

tags = Table(
    "tags",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("tag", Words, primary_key=True),
    Column("began", Position, nullable=False),
    Index("tags_tag", "tag", "began"),
    **_BY_KEY,
)

current = Table(
    "current",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("path", Words, primary_key=True),
    Column("node", Words, nullable=False),  # the path without numbers, as it stands in the definition
    Column("began", Position, nullable=False),
    Index("current_node", "node", "began"),
    **_BY_KEY,
)

timers = Table(
    "timers",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("timer", Words, primary_key=True),
    Column("due", Moment, nullable=False),
    Index("timers_due", "due"),
    **_BY_KEY,
)

spans = Table(
    "spans",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("n", Integer, primary_key=True),  # of the entry that it began with
    Column("i", Integer, primary_key=True),  # which event of it
    Column("kind", Words, nullable=False),
    Column("path", Words, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("began_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("outcome", Words),
    Column("error", Words),
    Column("detail", Json),
    **_BY_KEY,
)
Index("spans_open", spans.c.execution, sqlite_where=spans.c.ended_at.is_(None),
      postgresql_where=spans.c.ended_at.is_(None))  # fmt: skip

statistics = Table(
    "statistics",
    metadata,
    Column("workflow", Words, primary_key=True),
    Column("node", Words, primary_key=True),  # "" for the executions themselves
    Column("hour", Moment, primary_key=True),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cancelled", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("retried", Integer, nullable=False),
    Column("tokens_in", Position, nullable=False),
    Column("tokens_out", Position, nullable=False),
    Column("cost", Float, nullable=False),
    Column("durations", LargeBinary, nullable=False),
)

under_way = Table(
    "under_way",  # what statistics do not count yet
    metadata,
    Column("execution", Words, primary_key=True),
    Column("path", Words, primary_key=True),  # "" for the execution itself: as long as it is known
    Column("workflow", Words, nullable=False),
    Column("began_at", Moment, nullable=False),
    **_BY_KEY,
)

definitions = Table(
    "definitions",
    metadata,
    Column("workflow", Words, primary_key=True),
    Column("digest", Words, primary_key=True),
    Column("first_at", Moment, nullable=False),
    Column("last_at", Moment, nullable=False),
    **_BY_KEY,
)

approvals = Table(
    "approvals",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("title", Words, nullable=False),
    Column("details", Json),
    Column("assignees", Json, nullable=False),
    Column("since", Moment, nullable=False),
    Column("due", Moment),
    Index("approvals_since", "since", "execution"),
    **_BY_KEY,
)

assignees = Table(
    "assignees",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    Column("assignee", Short, primary_key=True),
    Index("assignees_assignee", "assignee"),
    **_BY_KEY,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("execution", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("error_type", Words, nullable=False),
    Column("error_message", Words, nullable=False),
    Column("since", Moment, nullable=False),
    Index("dead_letters_since", "since", "execution"),
    **_BY_KEY,
)
