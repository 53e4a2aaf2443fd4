"""The first tables. Those of releases without migrations go: they are made again from the log."""

import sqlalchemy as sa
from alembic import op

from perdure.projections import types

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    if op.get_bind().dialect.name == "sqlite":  # its file is ours alone
        for old in ("tracking", "executions", "timers"):
            op.execute(f"DROP TABLE IF EXISTS {old}")
    op.create_table(
        "approvals",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("node", types.Words(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("title", types.Words(), nullable=False),
        sa.Column("details", types.Json(), nullable=True),
        sa.Column("assignees", types.Json(), nullable=False),
        sa.Column("since", types.Moment(), nullable=False),
        sa.Column("due", types.Moment(), nullable=True),
        sa.PrimaryKeyConstraint("execution", "node"),
        sqlite_with_rowid=False,
    )
    op.create_index("approvals_since", "approvals", ["since", "execution"], unique=False)
    op.create_table(
        "assignees",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("node", types.Words(), nullable=False),
        sa.Column("assignee", types.Words(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "node", "assignee"),
        sqlite_with_rowid=False,
    )
    op.create_index("assignees_assignee", "assignees", ["assignee"], unique=False)
    op.create_table(
        "attributes",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("name", types.Words(), nullable=False),
        sa.Column("began", types.Position, nullable=False),
        sa.Column("text", types.Words(), nullable=True),
        sa.Column("number", sa.Float(), nullable=True),
        sa.Column("truth", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("execution", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index("attributes_number", "attributes", ["name", "number", "began"], unique=False)
    op.create_index("attributes_text", "attributes", ["name", "text", "began"], unique=False)
    op.create_index("attributes_truth", "attributes", ["name", "truth", "began"], unique=False)
    op.create_table(
        "current",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("path", types.Words(), nullable=False),
        sa.Column("node", types.Words(), nullable=False),
        sa.Column("began", types.Position, nullable=False),
        sa.PrimaryKeyConstraint("execution", "path"),
        sqlite_with_rowid=False,
    )
    op.create_index("current_node", "current", ["node", "began"], unique=False)
    op.create_table(
        "dead_letters",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("node", types.Words(), nullable=False),
        sa.Column("kind", types.Words(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error_type", types.Words(), nullable=False),
        sa.Column("error_message", types.Words(), nullable=False),
        sa.Column("since", types.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "node"),
        sqlite_with_rowid=False,
    )
    op.create_index("dead_letters_since", "dead_letters", ["since", "execution"], unique=False)
    op.create_table(
        "definitions",
        sa.Column("workflow", types.Words(), nullable=False),
        sa.Column("digest", types.Words(), nullable=False),
        sa.Column("first_at", types.Moment(), nullable=False),
        sa.Column("last_at", types.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("workflow", "digest"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "executions",
        sa.Column("began", types.Position, autoincrement=False, nullable=False),
        sa.Column("id", types.Words(), nullable=False),
        sa.Column("workflow", types.Words(), nullable=False),
        sa.Column("digest", types.Words(), nullable=False),
        sa.Column("status", types.Words(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parent", types.Words(), nullable=True),
        sa.Column("parent_node", types.Words(), nullable=True),
        sa.Column("started_at", types.Moment(), nullable=False),
        sa.Column("ended_at", types.Moment(), nullable=True),
        sa.Column("changed_at", types.Moment(), nullable=False),
        sa.Column("failed_node", types.Words(), nullable=True),
        sa.Column("error_type", types.Words(), nullable=True),
        sa.Column("error_message", types.Words(), nullable=True),
        sa.Column("compensating", sa.Boolean(), nullable=False),
        sa.Column("search", types.Json(), nullable=False),
        sa.Column("tags", types.Json(), nullable=False),
        sa.PrimaryKeyConstraint("began"),
        sa.UniqueConstraint("id", name="executions_id"),
    )
    op.create_index("executions_digest", "executions", ["digest", "began"], unique=False)
    op.create_index("executions_ended", "executions", ["ended_at", "began"], unique=False)
    op.create_index("executions_error", "executions", ["error_type", "began"], unique=False)
    op.create_index("executions_parent", "executions", ["parent", "began"], unique=False)
    op.create_index("executions_priority", "executions", ["priority", "began"], unique=False)
    op.create_index("executions_started", "executions", ["started_at", "began"], unique=False)
    op.create_index("executions_status", "executions", ["status", "began"], unique=False)
    op.create_index("executions_workflow", "executions", ["workflow", "began"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("projection", types.Words(), nullable=False),
        sa.Column("position", types.Position, nullable=False),
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("at", types.Moment(), nullable=False),
        sa.Column("error", types.Words(), nullable=False),
        sa.PrimaryKeyConstraint("projection", "position"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "spans",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("i", sa.Integer(), nullable=False),
        sa.Column("kind", types.Words(), nullable=False),
        sa.Column("path", types.Words(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("began_at", types.Moment(), nullable=False),
        sa.Column("ended_at", types.Moment(), nullable=True),
        sa.Column("outcome", types.Words(), nullable=True),
        sa.Column("error", types.Words(), nullable=True),
        sa.Column("detail", types.Json(), nullable=True),
        sa.PrimaryKeyConstraint("execution", "n", "i"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "spans_open",
        "spans",
        ["execution"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "statistics",
        sa.Column("workflow", types.Words(), nullable=False),
        sa.Column("node", types.Words(), nullable=False),
        sa.Column("hour", types.Moment(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cancelled", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("retried", sa.Integer(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("cost", sa.Float(), nullable=False),
        sa.Column("durations", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("workflow", "node", "hour"),
    )
    op.create_table(
        "tags",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("tag", types.Words(), nullable=False),
        sa.Column("began", types.Position, nullable=False),
        sa.PrimaryKeyConstraint("execution", "tag"),
        sqlite_with_rowid=False,
    )
    op.create_index("tags_tag", "tags", ["tag", "began"], unique=False)
    op.create_table(
        "timers",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("timer", types.Words(), nullable=False),
        sa.Column("due", types.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "timer"),
        sqlite_with_rowid=False,
    )
    op.create_index("timers_due", "timers", ["due"], unique=False)
    op.create_table(
        "tracking",
        sa.Column("projection", types.Words(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("log", types.Words(), nullable=False),
        sa.Column("position", types.Position, nullable=False),
        sa.PrimaryKeyConstraint("projection"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "under_way",
        sa.Column("execution", types.Words(), nullable=False),
        sa.Column("path", types.Words(), nullable=False),
        sa.Column("workflow", types.Words(), nullable=False),
        sa.Column("began_at", types.Moment(), nullable=False),
        sa.PrimaryKeyConstraint("execution", "path"),
        sqlite_with_rowid=False,
    )
