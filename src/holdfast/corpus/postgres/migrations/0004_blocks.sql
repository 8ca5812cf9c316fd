-- The index of words knows no order, and its answer to a common word is a part of everything. So it also knows the block
-- that a position is in, by four sizes of blocks, each told from the others by its lowest bits (../words.py): a search
-- asks for the newest ones first. First in the index: where the blocks asked for end, so does the reading of words.
-- As an expression, so that no row is written anew: some 25 seconds for a million records.
-- What waits to be sorted in is read by every search, and sorting it in holds up a writer: so at most 1 MB, not 4.
CREATE INDEX fts_words ON fts
  USING gin((ARRAY[pos >> 11 << 2, pos >> 14 << 2 | 1, pos >> 17 << 2 | 2, pos >> 20 << 2 | 3]), t)
  WITH (gin_pending_list_limit = 1024);
DROP INDEX fts_t;
