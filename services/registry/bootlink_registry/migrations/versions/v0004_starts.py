"""How a link starts a PC: from its disk and how, or from none: its own disk, a shell, a kernel."""

from alembic import op

revision = "0004"
down_revision = "0003"

_COLUMNS = """
    ALTER COLUMN image DROP NOT NULL,
    ADD COLUMN boot text NOT NULL DEFAULT 'disk' CHECK (boot IN ('disk', 'local', 'shell', 'kernel', 'none')),
    ADD COLUMN boot_file text NOT NULL DEFAULT '',
    ADD COLUMN keep_san boolean NOT NULL DEFAULT false,
    ADD COLUMN kernel text NOT NULL DEFAULT '',
    ADD COLUMN initrds text[] NOT NULL DEFAULT '{}',
    ADD COLUMN arguments text NOT NULL DEFAULT '',
    ADD CHECK ((boot = 'disk') = (image IS NOT NULL)),
    ADD CHECK ((boot = 'kernel') = (kernel <> '')),
    ADD CHECK (num_nonnulls(channel, version) = CASE boot WHEN 'disk' THEN 1 ELSE 0 END)
"""

# The check that one of channel and version is set has a name that PostgreSQL gave it.
_FORMER = """
    DO $$
    DECLARE former text;
    BEGIN
        SELECT conname INTO STRICT former FROM pg_constraint
        WHERE conrelid = '{table}'::regclass AND contype = 'c' AND pg_get_constraintdef(oid) LIKE '%channel IS NULL%';
        EXECUTE format('ALTER TABLE {table} DROP CONSTRAINT %I', former);
    END $$
"""


def upgrade() -> None:
    for table in ("links", "choices"):
        op.execute(_FORMER.format(table=table))
        op.execute(f"ALTER TABLE {table} {_COLUMNS}")


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
