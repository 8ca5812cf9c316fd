-- What lists of messages are narrowed by (../../migrations/hub_0006_mail_fields.sql). Filled anew from the messages.
DROP TABLE mail;
CREATE TABLE mail(
  pos bigint PRIMARY KEY, box text COLLATE "C" NOT NULL, msg text COLLATE "C" NOT NULL,
  sender text COLLATE "C" NOT NULL, needs smallint NOT NULL, tab smallint NOT NULL, was smallint NOT NULL,
  due_ms bigint, expires_ms bigint, kind text COLLATE "C" NOT NULL, priority smallint NOT NULL,
  role text COLLATE "C" NOT NULL, task text COLLATE "C", dedupe text COLLATE "C", artifact smallint NOT NULL
);
CREATE INDEX mail_tab ON mail(box, tab, needs, pos);
CREATE INDEX mail_msg ON mail(msg, sender);
CREATE INDEX mail_due ON mail(box, due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX mail_all ON mail(tab, needs, pos);
CREATE INDEX mail_sender ON mail(sender, pos);
CREATE INDEX mail_kind ON mail(kind, pos);
CREATE INDEX mail_role ON mail(role, pos);
CREATE INDEX mail_priority ON mail(priority, pos);
CREATE INDEX mail_task ON mail(task, pos) WHERE task IS NOT NULL;
CREATE INDEX mail_dedupe ON mail(dedupe, pos) WHERE dedupe IS NOT NULL;
CREATE INDEX mail_artifact ON mail(pos) WHERE artifact=1;
DELETE FROM meta WHERE k='mail_pos';
