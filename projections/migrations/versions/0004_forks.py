"""Say what an execution is a fork of. The rows are made again from the log."""

import sqlalchemy as sa
from alembic import op

from perdure.projections import types

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("executions", sa.Column("forked_from", types.Words()))
    op.create_index("executions_forked_from", "executions", ["forked_from", "began"])
