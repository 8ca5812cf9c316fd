-- What a hub still has to tell people of, has told, or has given up (`holdfast.hub.notify`); and its own figures over time
-- (`holdfast.hub.figures`), in steps of a minute, ten minutes and an hour, each kept for so long.
CREATE TABLE notice(
  id TEXT PRIMARY KEY, rule TEXT NOT NULL, state INTEGER NOT NULL,    -- 0 waits, 1 sent, 2 given up
  made_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL, next_ms INTEGER NOT NULL, since_ms INTEGER NOT NULL,
  tries INTEGER NOT NULL, held INTEGER NOT NULL,                      -- whether somebody sends it now
  many INTEGER NOT NULL, poses TEXT NOT NULL,                         -- of how many messages it tells, and where they are
  said TEXT NOT NULL, done_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX notice_next ON notice(state, next_ms);
CREATE INDEX notice_rule ON notice(rule, due_ms);
CREATE TABLE figure(
  step INTEGER NOT NULL, at INTEGER NOT NULL, who TEXT NOT NULL, data TEXT NOT NULL, PRIMARY KEY(step, at, who)
) STRICT, WITHOUT ROWID;
