-- Who has signed in to the hub's pages, and links that let somebody in once (../../migrations/auth_0002_sign_in.sql).
CREATE TABLE sign_in(
  digest bytea PRIMARY KEY, kind text NOT NULL CHECK(kind IN ('link', 'session')), token text NOT NULL,
  made_ms bigint NOT NULL, ends_ms bigint NOT NULL
);
