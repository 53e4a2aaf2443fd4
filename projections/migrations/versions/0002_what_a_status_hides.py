"""Keep what a status hides: that an execution is paused, or queued. The rows are made again from the log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    for name in ("paused", "queued"):
        op.add_column("executions", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
