-- Provider: values of chunks of large files that were read and whose root is not known yet, for as long as nothing
-- about the file changes: `chunks` holds 36 bytes for each, its number (big-endian) and its value; `sum` is over all
-- of the row.
CREATE TABLE hashed_chunks (
    id INTEGER PRIMARY KEY,
    resource TEXT NOT NULL,
    name BLOB NOT NULL,
    stat TEXT NOT NULL,
    chunk_bytes INTEGER NOT NULL,
    chunks BLOB NOT NULL,
    sum BLOB NOT NULL
) STRICT;
CREATE INDEX hashed_chunks_of ON hashed_chunks (resource, name);
