-- Both: what rules found in a split's rows, deterministic CBOR. NULL: there are none.
ALTER TABLE spooled ADD COLUMN quality BLOB;
ALTER TABLE landing_entry ADD COLUMN quality BLOB;
