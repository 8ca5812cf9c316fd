-- What only an agent's own file needs: its messages in order, found by walking back from the newest record. An index
-- would cost every message another page (5 of its 27 µs in SQLite), one over all records every put. Other records are
-- read by key.
ALTER TABLE rec ADD COLUMN back INTEGER NOT NULL DEFAULT 0;    -- pos of the newest message before this one, 0: none
