"""What the clients of a group are told over DHCP: options of the administrator's own, and other boot loaders."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # A group itself has no row: this is there for as long as it says something. Both are lists in JSON, as plans carry
    # them: options by their code, loader rules in the order in which they are tried.
    op.execute(
        """
        CREATE TABLE group_settings (
            name text PRIMARY KEY,
            options jsonb NOT NULL DEFAULT '[]',
            loaders jsonb NOT NULL DEFAULT '[]',
            changed timestamptz NOT NULL DEFAULT now()
        )
        """
    )


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
