"""The image manager: layers apart from versions, branches, own layers, more disks, boot menus, jobs and tokens."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    # A layer file. What a version shows never changes; which layers it is read from may: merging puts another layer
    # in its place. `owned` files lie in the image store and are ours to remove; the others are the user's. An owned
    # layer that nothing is read from any more is `retired`: PCs that run still read it, and an undo may need it.
    """
    CREATE TABLE layers (
        id uuid PRIMARY KEY,
        below uuid REFERENCES layers,
        path text NOT NULL,
        format text NOT NULL,
        virtual_size bigint NOT NULL,
        file_size bigint NOT NULL,
        mtime_ns bigint NOT NULL,
        disk_usage bigint NOT NULL,
        sha256 text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
        owned boolean NOT NULL DEFAULT false,
        fault text CHECK (fault IN ('missing', 'changed', 'corrupt')),
        created timestamptz NOT NULL DEFAULT now(),
        retired timestamptz,
        CHECK (below <> id)
    )
    """,
    "CREATE INDEX layers_below ON layers (below) WHERE below IS NOT NULL",
    """
    INSERT INTO layers (id, path, format, virtual_size, file_size, mtime_ns, disk_usage, fault, created)
    SELECT layer, path, format, virtual_size, file_size, mtime_ns, disk_usage, fault, created FROM versions
    """,
    """
    UPDATE layers SET below = p.layer FROM versions v JOIN versions p ON p.image = v.image AND p.number = v.parent
    WHERE v.layer = layers.id
    """,
    # `content` is what a version shows, whichever layers it is read from: kept write-backs are bound to it.
    """
    ALTER TABLE versions
        ADD COLUMN content uuid,
        ADD COLUMN author text NOT NULL DEFAULT '',
        ADD COLUMN from_boot uuid,
        DROP COLUMN path, DROP COLUMN format, DROP COLUMN virtual_size, DROP COLUMN file_size, DROP COLUMN mtime_ns,
        DROP COLUMN disk_usage, DROP COLUMN fault,
        DROP CONSTRAINT versions_layer_key,
        ADD FOREIGN KEY (layer) REFERENCES layers
    """,
    "UPDATE versions SET content = layer",
    "ALTER TABLE versions ALTER COLUMN content SET NOT NULL, ADD UNIQUE (content)",
    "CREATE INDEX versions_layer ON versions (layer)",
    # The number that was given last: none is given twice, also after its version was removed.
    "ALTER TABLE images ADD COLUMN numbered integer NOT NULL DEFAULT 0",
    "UPDATE images SET numbered = coalesce((SELECT max(number) FROM versions WHERE image = name), 0)",
    "ALTER TABLE channels ADD COLUMN former integer",  # what it pointed at before: where a rollback goes
    # More disks per client, each with a link of its own; LUN 0 is what it boots.
    """
    ALTER TABLE links
        ADD COLUMN lun integer NOT NULL DEFAULT 0 CHECK (lun BETWEEN 0 AND 254),
        ADD COLUMN own_layer boolean NOT NULL DEFAULT false,
        ADD COLUMN title text NOT NULL DEFAULT '',
        ADD COLUMN menu_seconds integer NOT NULL DEFAULT 10 CHECK (menu_seconds BETWEEN 0 AND 3600),
        ADD COLUMN menu_default text NOT NULL DEFAULT '',
        DROP CONSTRAINT links_pkey,
        ADD PRIMARY KEY (scope, key, lun),
        ADD CHECK (NOT own_layer OR (scope = 'client' AND version IS NOT NULL))
    """,
    # Further images that a PC may choose at its boot menu; the link itself is the menu's first entry.
    """
    CREATE TABLE choices (
        scope text NOT NULL,
        key text NOT NULL,
        lun integer NOT NULL DEFAULT 0 CHECK (lun = 0),
        name text NOT NULL,
        position integer NOT NULL,
        title text NOT NULL DEFAULT '',
        image text NOT NULL REFERENCES images,
        channel text,
        version integer,
        policy text NOT NULL,
        changed timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (scope, key, name),
        FOREIGN KEY (scope, key, lun) REFERENCES links ON DELETE CASCADE ON UPDATE CASCADE,
        FOREIGN KEY (image, channel) REFERENCES channels (image, name),
        FOREIGN KEY (image, version) REFERENCES versions (image, number),
        CHECK ((channel IS NULL) <> (version IS NULL))
    )
    """,
    # Plans lie here as in their bucket: under its keys, and what many clients share once (bootlink_events.sharing).
    "ALTER TABLE plans RENAME COLUMN mac TO key",
    "UPDATE plans SET key = replace(key, ':', '-')",
    "ALTER TABLE clients ADD COLUMN note text NOT NULL DEFAULT ''",
    # A super client: what it writes lies upon version `base`, and may become a version. `content` is what the version
    # shows to this branch alone, so that neither a kept write-back nor a former branch's is ever taken for its own.
    """
    CREATE TABLE branches (
        mac text PRIMARY KEY REFERENCES clients,
        image text NOT NULL,
        base integer NOT NULL,
        content uuid NOT NULL UNIQUE,
        author text NOT NULL DEFAULT '',
        created timestamptz NOT NULL DEFAULT now(),
        changed timestamptz NOT NULL DEFAULT now(),
        FOREIGN KEY (image, base) REFERENCES versions (image, number)
    )
    """,
    # A client's own layer over a pinned version. `layer` is what was sealed of it, null while nothing was;
    # `content` is what the two together show, and changes with each seal. `former_*` is what it was before it was
    # rebased, for as long as that can be undone.
    """
    CREATE TABLE own_layers (
        mac text NOT NULL REFERENCES clients ON DELETE CASCADE,
        lun integer NOT NULL,
        image text NOT NULL,
        version integer NOT NULL,
        layer uuid REFERENCES layers,
        content uuid NOT NULL UNIQUE,
        former_version integer,
        former_layer uuid REFERENCES layers,
        former_content uuid,
        created timestamptz NOT NULL DEFAULT now(),
        changed timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (mac, lun),
        FOREIGN KEY (image, version) REFERENCES versions (image, number),
        FOREIGN KEY (image, former_version) REFERENCES versions (image, number),
        CHECK ((former_version IS NULL) = (former_content IS NULL))
    )
    """,
    # Write-backs that nobody needs any more: what this client wrote upon `content`, to be thrown away once it is due.
    # `image`, `version` and `layer` (null: the version's) say what that content is read from. Where a layer was made
    # of the write-back, `boot_id` and `written` say what of it that holds; one that holds more by the time that it is
    # to go is left, and `left_boot` is the boot that has written to it since.
    """
    CREATE TABLE dropped_writebacks (
        content uuid PRIMARY KEY,
        mac text NOT NULL,
        lun integer NOT NULL,
        image text NOT NULL,
        version integer NOT NULL,
        layer uuid REFERENCES layers,
        boot_id uuid,
        written bigint,
        left_boot uuid,
        due timestamptz NOT NULL DEFAULT now(),
        CHECK ((boot_id IS NULL) = (written IS NULL))
    )
    """,
    # The block store that holds what lasts of a client: `held` if it said so, with its last boot there. A row outlives
    # its client, as what it keeps does.
    """
    CREATE TABLE homes (
        mac text PRIMARY KEY,
        node text NOT NULL,
        boot_id uuid,
        held boolean NOT NULL DEFAULT false,
        since timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Long work. `exclusive` names what one job at a time may work on.
    """
    CREATE TABLE jobs (
        id uuid PRIMARY KEY,
        kind text NOT NULL,
        subject text NOT NULL,
        exclusive text,
        request jsonb NOT NULL,
        author text NOT NULL DEFAULT '',
        state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
        cancelling boolean NOT NULL DEFAULT false,
        attempts integer NOT NULL DEFAULT 0,
        stage text NOT NULL DEFAULT '',
        done bigint NOT NULL DEFAULT 0,
        total bigint,
        result jsonb,
        problem jsonb,
        created timestamptz NOT NULL DEFAULT now(),
        started timestamptz,
        ended timestamptz,
        changed timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE UNIQUE INDEX jobs_exclusive ON jobs (exclusive) WHERE state IN ('queued', 'running')",
    "CREATE INDEX jobs_waiting ON jobs (created) WHERE state IN ('queued', 'running')",
    # Who may use the API. Of a token its SHA-256 alone is kept; it has 256 random bits.
    """
    CREATE TABLE tokens (
        name text PRIMARY KEY,
        role text NOT NULL CHECK (role IN ('admin', 'operator', 'viewer')),
        hash text NOT NULL UNIQUE,
        note text NOT NULL DEFAULT '',
        created timestamptz NOT NULL DEFAULT now(),
        expires timestamptz,
        used timestamptz
    )
    """,
    # What an administrator sets while the registry runs; its environment gives the first value.
    "CREATE TABLE settings (name text PRIMARY KEY, value jsonb NOT NULL, changed timestamptz NOT NULL DEFAULT now())",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("restore a dump of the former version instead")
