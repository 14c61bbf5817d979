-- The job that a shard is a part of, and what it hands to it: base64, sealed with the resource's key.
ALTER TABLE jobs ADD COLUMN parent TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN result TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_of_parent ON jobs (parent);
