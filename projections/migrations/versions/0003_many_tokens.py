"""Count more tokens in an hour than PostgreSQL's integer holds; SQLite's holds them."""

from alembic import op

from perdure.projections import types

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Widen the columns."""
    if op.get_bind().dialect.name == "postgresql":
        for name in ("tokens_in", "tokens_out"):
            op.alter_column("statistics", name, type_=types.Position)
