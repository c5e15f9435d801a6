-- Both: milliseconds that a transfer waited for its source, for the line and for its destination, of each epoch of the
-- node that had to do with it. NULL: this side does not know.
CREATE TABLE spent (
  transfer TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  source_ms INTEGER,
  line_ms INTEGER,
  destination_ms INTEGER,
  PRIMARY KEY (transfer, epoch)
) WITHOUT ROWID;
