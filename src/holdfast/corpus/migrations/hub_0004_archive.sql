-- Bodies that an archive holds (why 4) come back from there: they are no envelopes.
DROP INDEX rec_bare;
CREATE INDEX rec_bare ON rec(branch, seq) WHERE body IS NULL AND why<>3 AND why<>4;
