"""alembic's environment: runs the migrations on the connection that `bootlink_registry.schema` hands it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
with context.begin_transaction():
    context.run_migrations()
