-- The key-encryption key may lie in the operating system's keyring, too. A CHECK cannot be changed in place.
CREATE TABLE wrapping_now(               -- which key-encryption key that is, and how it is come by
  only INTEGER PRIMARY KEY CHECK(only=1), id TEXT NOT NULL,
  how TEXT NOT NULL CHECK(how IN ('file', 'argon2id', 'scrypt', 'keyring')), salt BLOB NOT NULL, proof BLOB NOT NULL
) STRICT;
INSERT INTO wrapping_now SELECT only, id, how, salt, proof FROM wrapping;
DROP TABLE wrapping;
ALTER TABLE wrapping_now RENAME TO wrapping;
