"""Webhooks, and the events that wait for them or were given up."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # A secret is kept as it is, since a hash could not sign. `former_secret` signs besides until `former_until`.
    op.execute(
        """
        CREATE TABLE webhooks (
            name text PRIMARY KEY,
            url text NOT NULL,
            filters text[] NOT NULL DEFAULT '{}',
            note text NOT NULL DEFAULT '',
            secret text NOT NULL,
            former_secret text,
            former_until timestamptz,
            enabled boolean NOT NULL DEFAULT true,
            problem text NOT NULL DEFAULT '',
            failing_since timestamptz,
            delivered timestamptz,
            author text NOT NULL DEFAULT '',
            created timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    # `leased`: until when a delivery under way is one worker's; who has it longer has died.
    op.execute(
        """
        CREATE TABLE deliveries (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            webhook text NOT NULL REFERENCES webhooks (name) ON DELETE CASCADE ON UPDATE CASCADE,
            event_id text NOT NULL,
            event text NOT NULL,
            state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'dead')),
            attempts integer NOT NULL DEFAULT 0,
            refusals integer NOT NULL DEFAULT 0,
            problem text NOT NULL DEFAULT '',
            due timestamptz NOT NULL DEFAULT now(),
            leased timestamptz NOT NULL DEFAULT '-infinity',
            queued timestamptz NOT NULL DEFAULT now(),
            changed timestamptz NOT NULL DEFAULT now(),
            UNIQUE (webhook, event_id)
        )
        """
    )
    op.execute("CREATE INDEX deliveries_due ON deliveries (webhook, due) WHERE state = 'waiting'")
    op.execute("CREATE INDEX deliveries_over ON deliveries (state, changed) WHERE state <> 'waiting'")
    op.execute("CREATE INDEX deliveries_dead ON deliveries (webhook, id) WHERE state = 'dead'")


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
