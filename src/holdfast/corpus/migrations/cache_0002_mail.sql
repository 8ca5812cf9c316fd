-- Mail that was fetched from a hub, to be read while the hub is away.
CREATE TABLE mail(
  id INTEGER PRIMARY KEY, box TEXT NOT NULL, sender TEXT NOT NULL, msg TEXT NOT NULL, seq INTEGER NOT NULL,
  link BLOB NOT NULL, body BLOB NOT NULL, UNIQUE(box, sender, msg)
) STRICT;
