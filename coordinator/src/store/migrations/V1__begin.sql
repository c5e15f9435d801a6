-- The centre's durable state. Times are milliseconds of UTC. Leaves and hashes are only ever added.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    name                TEXT PRIMARY KEY,
    joined_at           INTEGER NOT NULL,
    revoked_at          INTEGER,
    epoch               INTEGER NOT NULL,
    fenced_at           INTEGER,
    policy_sequence     INTEGER NOT NULL,
    certificate_expires INTEGER NOT NULL,
    profile             BLOB NOT NULL,
    report              BLOB,
    reported_at         INTEGER
) STRICT, WITHOUT ROWID;

-- Present and past keys: old receipts verify for ever.
CREATE TABLE statement_keys (
    node  TEXT NOT NULL,
    key   BLOB NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (node, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE certificates (
    sha256     BLOB PRIMARY KEY,
    node       TEXT NOT NULL,
    issued_at  INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_node ON certificates (node);

-- `used_by` binds the one use to its request, so that a lost answer can be given again and nothing else.
CREATE TABLE tokens (
    hash       BLOB PRIMARY KEY,
    node       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER,
    used_by    BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE access (
    name         TEXT PRIMARY KEY,
    role         TEXT NOT NULL,
    hash         BLOB NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (
    id          TEXT PRIMARY KEY,
    consumer    TEXT NOT NULL,
    provider    TEXT NOT NULL,
    resource    TEXT NOT NULL,
    until       INTEGER NOT NULL,
    encoded     BLOB NOT NULL,
    filter_text TEXT,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_consumer ON grants (consumer);
CREATE INDEX grants_by_provider ON grants (provider);

CREATE TABLE leaves (
    leaf     INTEGER PRIMARY KEY,
    sha256   BLOB NOT NULL UNIQUE,
    bytes    BLOB NOT NULL,
    issuer   TEXT NOT NULL,
    kind     TEXT NOT NULL,
    transfer TEXT,
    taken_at INTEGER NOT NULL
) STRICT;
CREATE INDEX leaves_by_transfer ON leaves (transfer) WHERE transfer IS NOT NULL;
CREATE INDEX leaves_by_kind ON leaves (kind, leaf);

-- RFC 6962 hashes of complete subtrees, by their stored position.
CREATE TABLE hashes (
    position INTEGER PRIMARY KEY,
    hash     BLOB NOT NULL
) STRICT;

-- What is known of each transfer, from statements and reports. `data` is the whole row as JSON.
CREATE TABLE transfers (
    transfer   TEXT PRIMARY KEY,
    at         INTEGER NOT NULL,
    provider   TEXT NOT NULL,
    consumer   TEXT NOT NULL,
    state      TEXT NOT NULL,
    verdict    TEXT,
    receipt    TEXT,
    receipt_at INTEGER,
    data       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX transfers_by_time ON transfers (at, transfer);
CREATE INDEX transfers_open ON transfers (at) WHERE verdict IS NULL;
CREATE INDEX transfers_by_verdict ON transfers (verdict, at);
CREATE UNIQUE INDEX transfers_by_receipt ON transfers (receipt) WHERE receipt IS NOT NULL;
CREATE INDEX receipts_by_time ON transfers (receipt_at, transfer) WHERE receipt IS NOT NULL;

CREATE TABLE alarms (
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    cause      TEXT NOT NULL,
    first_at   INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    times      INTEGER NOT NULL,
    cleared_at INTEGER,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
