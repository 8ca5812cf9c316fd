-- The ids of requests by the records that they wrote (../../migrations/hub_0009_requests.sql).
CREATE INDEX IF NOT EXISTS tag_request ON tag(k, pos) WHERE k=8;
