-- The highest epoch of a leader that has written the routing table: whoever comes with a lower one was replaced.
ALTER TABLE ledger ADD COLUMN leader_epoch BIGINT NOT NULL DEFAULT 0;
