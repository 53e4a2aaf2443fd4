"""Alembic's environment: runs the migrations on the connection, and in the transaction, that it is given."""

from alembic import context

from perdure.projections.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table="perdure_schema"
)
context.run_migrations()
