-- What inboxes are read and counted by (../../migrations/hub_0003_mail.sql).
CREATE TABLE mail(
  pos bigint PRIMARY KEY, box text COLLATE "C" NOT NULL, msg text COLLATE "C" NOT NULL,
  sender text COLLATE "C" NOT NULL, needs smallint NOT NULL, tab smallint NOT NULL, was smallint NOT NULL,
  due_ms bigint, expires_ms bigint
);
CREATE INDEX mail_tab ON mail(box, tab, needs, pos);
CREATE INDEX mail_msg ON mail(msg, sender);
CREATE INDEX mail_due ON mail(box, due_ms) WHERE due_ms IS NOT NULL;
CREATE TABLE delivery(
  msg text COLLATE "C" NOT NULL, sender text COLLATE "C" NOT NULL, reader text COLLATE "C" NOT NULL,
  reading text NOT NULL, done_pos bigint NOT NULL, PRIMARY KEY(msg, sender, reader)
);
