-- Consumer: which transfer answers which run of a pushed job. An invitation whose answer was lost comes again.
CREATE TABLE invited (
    peer TEXT NOT NULL,
    run BLOB NOT NULL,
    transfer TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (peer, run)
) WITHOUT ROWID;
