-- Consumer: a file that comes under a new name is looked for among those that a job has landed.
CREATE INDEX landed_by_size ON landed (job, size);
