-- The ids of requests (tag 8, `holdfast.corpus.sql.TAGS`) by the records that they wrote: whoever follows this hub is told
-- them with the records. Over these tags alone, so that no other write pays for it.
CREATE INDEX IF NOT EXISTS tag_request ON tag(k, pos) WHERE k=8;
