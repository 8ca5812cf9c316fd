-- What inboxes are read and counted by. Derived: filled from messages and from what their readers said of them, behind a
-- watermark (`holdfast.collections.mailbox`), and made again when that is taken away.
CREATE TABLE mail(                       -- one message; `box` is its recipient, empty for whoever looks
  pos INTEGER PRIMARY KEY, box TEXT NOT NULL, msg TEXT NOT NULL, sender TEXT NOT NULL, needs INTEGER NOT NULL,
  tab INTEGER NOT NULL, was INTEGER NOT NULL,         -- where it lies; where it would, were it not put off
  due_ms INTEGER, expires_ms INTEGER                  -- when it moves by itself
) STRICT;
CREATE INDEX mail_tab ON mail(box, tab, needs, pos);
CREATE INDEX mail_msg ON mail(msg, sender);
CREATE INDEX mail_due ON mail(box, due_ms) WHERE due_ms IS NOT NULL;
CREATE TABLE delivery(                   -- what one reader said of one message, taken together
  msg TEXT NOT NULL, sender TEXT NOT NULL, reader TEXT NOT NULL, reading TEXT NOT NULL, done_pos INTEGER NOT NULL,
  PRIMARY KEY(msg, sender, reader)
) STRICT, WITHOUT ROWID;
