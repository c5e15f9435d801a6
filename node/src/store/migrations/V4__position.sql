-- Provider: where the snapshot of a table stood, in its source's own words. The consumer never sees it: when that
-- transfer is the last that it landed, the next incremental one reads on from there.
ALTER TABLE offered ADD COLUMN position TEXT;
