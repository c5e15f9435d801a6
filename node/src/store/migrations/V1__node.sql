-- What a node knows of itself, its transfers and its evidence. Times are milliseconds UTC.
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    name TEXT PRIMARY KEY,
    paused INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    last_due INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE transfers (
    id TEXT PRIMARY KEY,
    side TEXT NOT NULL,
    job TEXT NOT NULL,
    peer TEXT NOT NULL,
    provider TEXT NOT NULL,
    resource TEXT NOT NULL,
    mode TEXT NOT NULL,
    write TEXT NOT NULL,
    state TEXT NOT NULL,
    pushed INTEGER NOT NULL,
    succeeds TEXT,
    peer_epoch INTEGER NOT NULL,
    watermark_from TEXT,
    watermark_to TEXT,
    counts TEXT NOT NULL,
    files_sent INTEGER NOT NULL,
    bytes_sent INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    resent_chunks INTEGER NOT NULL,
    transport TEXT,
    problem TEXT,
    created INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    active_ms INTEGER NOT NULL,
    receipt TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX transfers_by_job ON transfers (job, created);
CREATE INDEX transfers_by_created ON transfers (created);
CREATE INDEX transfers_by_ended ON transfers (ended) WHERE ended IS NOT NULL;
CREATE INDEX transfers_open ON transfers (state) WHERE state NOT IN ('settled', 'refused', 'failed', 'cancelled');

-- Statements are kept for ever. own: made here; otherwise the peer's.
CREATE TABLE statements (
    sha256 BLOB PRIMARY KEY,
    transfer TEXT,
    own INTEGER NOT NULL,
    kind TEXT NOT NULL,
    bytes BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX statements_by_transfer ON statements (transfer);

-- The last statement made here for one pair, resource, job and epoch.
CREATE TABLE chains (
    peer TEXT NOT NULL,
    resource TEXT NOT NULL,
    job TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    PRIMARY KEY (peer, resource, job, epoch)
) STRICT, WITHOUT ROWID;

-- Own statements that the centre has not acknowledged, oldest first.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE,
    queued INTEGER NOT NULL,
    refused TEXT
) STRICT;

CREATE TABLE proofs (
    sha256 BLOB PRIMARY KEY,
    leaf INTEGER NOT NULL,
    inclusion BLOB NOT NULL,
    checkpoint TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One per settled transfer.
CREATE TABLE receipts (
    id TEXT PRIMARY KEY,
    transfer TEXT NOT NULL UNIQUE,
    provider_sha256 BLOB NOT NULL,
    consumer_sha256 BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_by_consumer ON receipts (consumer_sha256);

-- The latest policy and the latest word of freshness, as signed.
CREATE TABLE policy (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    bytes BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    freshness BLOB,
    fresh_at INTEGER NOT NULL
) STRICT;

-- The highest epoch seen of each peer: a lower one is a restored copy.
CREATE TABLE peer_epochs (peer TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    transfer TEXT NOT NULL,
    side TEXT NOT NULL,
    split TEXT NOT NULL,
    key TEXT NOT NULL,
    reason TEXT NOT NULL,
    original TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX quarantine_by_transfer ON quarantine (transfer);
