-- Who may ask this hub (../../migrations/auth_0001_start.sql): secrets as hashes alone. `change` grows with each token
-- that is made or revoked, and is what the processes of a hub look at.
CREATE TABLE token(
  id text COLLATE "C" PRIMARY KEY, digest bytea NOT NULL, kind text NOT NULL, name text NOT NULL, scopes text NOT NULL,
  agents text NOT NULL, collections text NOT NULL, note text NOT NULL, made_ms bigint NOT NULL, ends_ms bigint,
  revoked_ms bigint, used_ms bigint
);
CREATE TABLE token_change(number bigint NOT NULL);
INSERT INTO token_change VALUES(0);
