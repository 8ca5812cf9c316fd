-- What lists of messages are narrowed by. Filled anew from the messages, so the table begins empty.
DROP TABLE mail;
CREATE TABLE mail(                       -- one message; `box` is its recipient, empty for whoever looks
  pos INTEGER PRIMARY KEY, box TEXT NOT NULL, msg TEXT NOT NULL, sender TEXT NOT NULL, needs INTEGER NOT NULL,
  tab INTEGER NOT NULL, was INTEGER NOT NULL,         -- where it lies; where it would, were it not put off
  due_ms INTEGER, expires_ms INTEGER,                 -- when it moves by itself
  kind TEXT NOT NULL, priority INTEGER NOT NULL, role TEXT NOT NULL, task TEXT, dedupe TEXT, artifact INTEGER NOT NULL
) STRICT;
CREATE INDEX mail_tab ON mail(box, tab, needs, pos);
CREATE INDEX mail_msg ON mail(msg, sender);
CREATE INDEX mail_due ON mail(box, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX mail_all ON mail(tab, needs);            -- and within each of these by pos, which is the rowid
CREATE INDEX mail_sender ON mail(sender);
CREATE INDEX mail_kind ON mail(kind);
CREATE INDEX mail_role ON mail(role);
CREATE INDEX mail_priority ON mail(priority);
CREATE INDEX mail_task ON mail(task) WHERE task IS NOT NULL;
CREATE INDEX mail_dedupe ON mail(dedupe) WHERE dedupe IS NOT NULL;
CREATE INDEX mail_artifact ON mail(artifact) WHERE artifact=1;
DELETE FROM meta WHERE k='mail_pos';
