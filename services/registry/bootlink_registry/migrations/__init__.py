"""The database's schema, as alembic migrations in plain SQL. They ship with the package and run at its start."""
