-- Who has signed in to the hub's pages ('session'), and links that let somebody in once ('link'): the digest of a secret,
-- and the id of the token that it stands for, or 'operator:' and the digest of the one that the hub was started with.
CREATE TABLE sign_in(
  digest BLOB PRIMARY KEY, kind TEXT NOT NULL CHECK(kind IN ('link', 'session')), token TEXT NOT NULL,
  made_ms INTEGER NOT NULL, ends_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
