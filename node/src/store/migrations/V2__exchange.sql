-- What the rooms of a transfer make durable besides the transfer's own row and its statements.

-- Consumer: what was offered and handed over. `staged` is set once everything is durable and agrees with
-- the provider's statement: from then on the line is not needed to commit.
CREATE TABLE landing (
    transfer TEXT PRIMARY KEY,
    offer BLOB,
    staged BLOB,
    session INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Consumer: one row per file, folder, link or split that is durable in part (whole = 0, its chunks follow)
-- or wholly (whole = 1: a sealed part or a split's file; whole = 2: it already stood at its place).
CREATE TABLE landing_entry (
    id INTEGER PRIMARY KEY,
    transfer TEXT NOT NULL,
    name BLOB NOT NULL,
    position INTEGER NOT NULL,
    entry BLOB NOT NULL,
    whole INTEGER NOT NULL,
    session INTEGER NOT NULL DEFAULT 0,
    rows_landed INTEGER,
    rows_quarantined INTEGER,
    digest_sum BLOB,
    digest_count INTEGER,
    UNIQUE (transfer, name)
);
CREATE INDEX landing_entry_in_order ON landing_entry (transfer, position);

-- Values of durable chunks of files that are not whole yet: `hashes` holds 32 bytes for each chunk from `first` on.
CREATE TABLE landing_chunks (
    entry INTEGER NOT NULL REFERENCES landing_entry (id) ON DELETE CASCADE,
    first INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (entry, first)
) WITHOUT ROWID;

-- Consumer: what a job landed in its folder, with the file's state right after: unchanged files are not asked
-- for again, and a mirror deletes only what it landed itself.
CREATE TABLE landed (
    job TEXT NOT NULL,
    name BLOB NOT NULL,
    kind TEXT NOT NULL,
    root BLOB,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    stat TEXT NOT NULL,
    transfer TEXT NOT NULL,
    PRIMARY KEY (job, name)
) WITHOUT ROWID;

-- Consumer: how far an incremental job has landed.
CREATE TABLE reached (
    job TEXT PRIMARY KEY,
    watermark BLOB NOT NULL,
    transfer TEXT NOT NULL
) WITHOUT ROWID;

-- Provider: roots of files as they were read last, for as long as nothing about the file changes.
CREATE TABLE hashed (
    resource TEXT NOT NULL,
    name BLOB NOT NULL,
    stat TEXT NOT NULL,
    root BLOB NOT NULL,
    PRIMARY KEY (resource, name)
) WITHOUT ROWID;

-- Provider: what it was asked for and what it answered; `handover` is set in the transaction that signs.
CREATE TABLE offered (
    transfer TEXT PRIMARY KEY,
    consumer TEXT NOT NULL,
    request BLOB NOT NULL,
    offer BLOB NOT NULL,
    handover BLOB,
    started INTEGER NOT NULL,
    sealed INTEGER NOT NULL DEFAULT 0,
    buckets BLOB
) WITHOUT ROWID;

-- Provider: splits that are durable in the spool. They are all there when `offered.sealed` is 1.
CREATE TABLE spooled (
    transfer TEXT NOT NULL,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    root BLOB NOT NULL,
    size INTEGER NOT NULL,
    counts BLOB NOT NULL,
    digest_sum BLOB NOT NULL,
    digest_count INTEGER NOT NULL,
    PRIMARY KEY (transfer, position)
) WITHOUT ROWID;

-- Both: the digest of a job's table as it stood when its last receipt was made.
CREATE TABLE standing (
    side TEXT NOT NULL,
    peer TEXT NOT NULL,
    job TEXT NOT NULL,
    resource TEXT NOT NULL,
    contract_sha256 BLOB NOT NULL,
    buckets BLOB NOT NULL,
    transfer TEXT NOT NULL,
    PRIMARY KEY (side, peer, job)
) WITHOUT ROWID;
