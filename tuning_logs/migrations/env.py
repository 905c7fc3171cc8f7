"""Runs migrations on the connection, and in the transaction, that `tuning_logs.schema` hands over."""

from alembic import context

from tunewright.tuning_logs.schema import VERSION_TABLE
from tunewright.tuning_logs.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite has almost no ALTER TABLE
)
with context.begin_transaction():
    context.run_migrations()
