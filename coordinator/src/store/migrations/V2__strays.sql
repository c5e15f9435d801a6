-- Statements about a transfer that name other parties: how many are told of it.

ALTER TABLE transfers ADD COLUMN strays INTEGER NOT NULL DEFAULT 0;
CREATE INDEX transfers_strayed ON transfers (at, transfer) WHERE strays > 0;
