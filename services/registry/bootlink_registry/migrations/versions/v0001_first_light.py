"""First light: images, clients, links, boots, and what travels from here to NATS."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE images (
        name text PRIMARY KEY,
        note text NOT NULL DEFAULT '',
        created timestamptz NOT NULL DEFAULT now()
    )
    """,
    # A version is immutable but for `fault`, which says what was wrong with its file when it was last looked at.
    """
    CREATE TABLE versions (
        image text NOT NULL REFERENCES images,
        number integer NOT NULL CHECK (number >= 1),
        parent integer CHECK (parent < number),
        layer uuid NOT NULL UNIQUE,
        path text NOT NULL,
        format text NOT NULL,
        virtual_size bigint NOT NULL,
        file_size bigint NOT NULL,
        mtime_ns bigint NOT NULL,
        disk_usage bigint NOT NULL,
        note text NOT NULL DEFAULT '',
        fault text CHECK (fault IN ('missing', 'changed')),
        created timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (image, number),
        FOREIGN KEY (image, parent) REFERENCES versions (image, number)
    )
    """,
    """
    CREATE TABLE channels (
        image text NOT NULL,
        name text NOT NULL,
        version integer NOT NULL,
        changed timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (image, name),
        FOREIGN KEY (image, version) REFERENCES versions (image, number)
    )
    """,
    """
    CREATE TABLE clients (
        mac text PRIMARY KEY,
        name text NOT NULL UNIQUE,
        group_name text,
        address inet UNIQUE,
        disabled boolean NOT NULL DEFAULT false,
        enrolled boolean NOT NULL DEFAULT false,
        created timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX clients_group ON clients (group_name) WHERE group_name IS NOT NULL",
    "CREATE SEQUENCE enrolment",
    # `key` is a MAC address, a group's name or empty. The generated column lets a client's link go with the client.
    """
    CREATE TABLE links (
        scope text NOT NULL CHECK (scope IN ('client', 'group', 'default')),
        key text NOT NULL,
        image text NOT NULL REFERENCES images,
        channel text,
        version integer,
        policy text NOT NULL,
        changed timestamptz NOT NULL DEFAULT now(),
        mac text GENERATED ALWAYS AS (CASE WHEN scope = 'client' THEN key END) STORED
            REFERENCES clients ON DELETE CASCADE,
        PRIMARY KEY (scope, key),
        FOREIGN KEY (image, channel) REFERENCES channels (image, name),
        FOREIGN KEY (image, version) REFERENCES versions (image, number),
        CHECK ((channel IS NULL) <> (version IS NULL)),
        CHECK ((scope = 'default') = (key = ''))
    )
    """,
    # The last compiled plan of each client. One sequence for all: a revision grows also when a client comes back.
    "CREATE SEQUENCE plan_revision",
    """
    CREATE TABLE plans (
        mac text PRIMARY KEY,
        revision bigint NOT NULL,
        body text NOT NULL
    )
    """,
    # Whose plans have to be compiled anew; written in the transaction of the change.
    """
    CREATE TABLE recompiles (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        scope text NOT NULL CHECK (scope IN ('client', 'group', 'all')),
        key text NOT NULL
    )
    """,
    # Events that were recorded with their change and are not published yet; see bootlink_registry.outbox.
    """
    CREATE TABLE outbox (
        id uuid PRIMARY KEY,
        seq bigint GENERATED ALWAYS AS IDENTITY,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        event text NOT NULL,
        created timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX outbox_order ON outbox (xid, seq)",
    """
    CREATE TABLE boots (
        boot_id uuid PRIMARY KEY,
        mac text NOT NULL,
        client text,
        state text NOT NULL,
        started timestamptz NOT NULL,
        ended timestamptz,
        summary jsonb NOT NULL,
        over_since timestamptz,
        root_written boolean NOT NULL DEFAULT false,
        heard timestamptz NOT NULL DEFAULT now(),
        examined boolean NOT NULL DEFAULT false
    )
    """,
    "CREATE INDEX boots_of_client ON boots (mac, boot_id DESC)",
    "CREATE INDEX boots_to_examine ON boots (heard) WHERE state = 'booting' AND NOT examined",
    "CREATE INDEX boots_without_root ON boots (over_since) WHERE over_since IS NOT NULL AND NOT root_written",
    # The event id is the key: an event that is delivered again changes nothing.
    """
    CREATE TABLE boot_stages (
        event_id text PRIMARY KEY,
        boot_id uuid NOT NULL REFERENCES boots ON DELETE CASCADE,
        kind text NOT NULL,
        source text NOT NULL,
        started timestamptz NOT NULL,
        ended timestamptz NOT NULL,
        data jsonb NOT NULL
    )
    """,
    "CREATE INDEX boot_stages_of_boot ON boot_stages (boot_id)",
    # PCs that asked and were not enrolled.
    """
    CREATE TABLE sightings (
        mac text PRIMARY KEY,
        boot_id uuid NOT NULL,
        address inet,
        arch text NOT NULL,
        vendor_class text NOT NULL,
        first_seen timestamptz NOT NULL DEFAULT now(),
        last_seen timestamptz NOT NULL DEFAULT now()
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
