-- Provider: front-end tables. What a transfer has read stands in a file of its own; state: 0 read, 1 receipted, so that
-- its flags are to be written back, 2 written back, and kept until its rows may be purged.
CREATE TABLE front (
    transfer TEXT PRIMARY KEY,
    resource TEXT NOT NULL,
    state INTEGER NOT NULL,
    marked INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
