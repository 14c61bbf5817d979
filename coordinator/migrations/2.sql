-- Since when an item has been failing, and what becomes of it. A coordinator of the version before writes neither.
ALTER TABLE failed_items ADD COLUMN since_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE failed_items ADD COLUMN fate TEXT NOT NULL DEFAULT 'retried';
CREATE INDEX failed_items_code ON failed_items (code, since_ms);
-- The certificate that claimed a job: nobody else speaks for it.
ALTER TABLE jobs ADD COLUMN claimed_by TEXT NOT NULL DEFAULT '';
