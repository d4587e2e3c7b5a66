"""Links that ask for CHAP."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE links ADD COLUMN chap text NOT NULL DEFAULT 'off' CHECK (chap IN ('off', 'one-way', 'mutual'))
        """
    )


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
