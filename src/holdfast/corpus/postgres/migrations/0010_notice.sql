-- Notifications that are still to be sent, and a hub's own figures over time (../../migrations/hub_0007_notice.sql).
CREATE TABLE notice(
  id text COLLATE "C" PRIMARY KEY, rule text COLLATE "C" NOT NULL, state smallint NOT NULL, made_ms bigint NOT NULL,
  due_ms bigint NOT NULL, next_ms bigint NOT NULL, since_ms bigint NOT NULL, tries integer NOT NULL,
  held smallint NOT NULL, many integer NOT NULL, poses text NOT NULL, said text NOT NULL, done_ms bigint NOT NULL
);
CREATE INDEX notice_next ON notice(state, next_ms);
CREATE INDEX notice_rule ON notice(rule, due_ms);
CREATE TABLE figure(
  step integer NOT NULL, at bigint NOT NULL, who text COLLATE "C" NOT NULL, data text NOT NULL,
  PRIMARY KEY(step, at, who)
);
