-- Relays that grants prescribe: whose policies hold these grants too.

CREATE TABLE relays (
    grant_id TEXT NOT NULL REFERENCES grants (id),
    relay    TEXT NOT NULL,
    PRIMARY KEY (grant_id, relay)
) STRICT, WITHOUT ROWID;
CREATE INDEX relays_by_node ON relays (relay);
