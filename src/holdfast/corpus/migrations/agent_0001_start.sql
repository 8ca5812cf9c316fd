-- What only an agent's own file needs: its messages in order. Other records are read by key; an index over all of them
-- would cost every put another page (3 µs of 25).
CREATE INDEX rec_messages ON rec(coll) WHERE coll=1;
