"""What only PostgreSQL has: other processes, connections that die, partitions, other histories, and its own blobs."""

from __future__ import annotations

import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from holdfast import codec, seal, wire
from holdfast.collections import mailbox
from holdfast.corpus import Filter, search
from holdfast.corpus.pages import Wanted
from holdfast.corpus.pages import feed as filtered
from holdfast.corpus.postgres import Database, PostgresCorpus
from holdfast.corpus.postgres.blobs import BlobTable
from holdfast.corpus.postgres.engine import migrations
from holdfast.errors import BlobCorrupt, Conflict, HubUnavailable, IntegrityError, NotFound, UsageError
from holdfast.hub.database import HubDatabase
from holdfast.hub.judge import HubIngest
from holdfast.integrity import verify_corpus
from holdfast.log import message, value
from holdfast.testing.corpus import content, log_of, names, put, refused
from tests.hub.pens import Pen
from tests.services import Postgres


def backend(corpus: PostgresCorpus, address: str, sql: str) -> None:
    """Does something to the server's side of the connection that writes."""
    with psycopg.connect(address, autocommit=True) as other:
        other.execute(sql, (corpus.engine._writer.info.backend_pid,))


# -- connections that die -----------------------------------------------------------------------------------------


def test_a_commit_whose_answer_was_lost_is_neither_told_done_nor_run_again(database: str, tmp_path: Path) -> None:
    """COMMIT reached the server and its answer did not reach us: the records are there, and once."""
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    put(log, "before")
    runs: list[str] = []
    together = threading.Barrier(3)

    def writer(who: str) -> Any:
        write = log.job([value("state", who, who)])

        def job(tx: Any) -> None:
            runs.append(who)
            write(tx)

        together.wait()
        return corpus.write(job)

    with psycopg.connect(database, autocommit=True) as other:
        # A deferred trigger runs inside COMMIT; it ends the connection behind it, so the outcome cannot be told.
        other.execute(
            "CREATE FUNCTION holdfast.die() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0.01); RETURN NULL; END $$"
        )
        other.execute(
            "CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON holdfast.counter DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION holdfast.die()"
        )
        with ThreadPoolExecutor(3) as pool:
            outcomes = [each.exception() for each in [pool.submit(writer, who) for who in "abc"]]
        assert all(isinstance(each, HubUnavailable) for each in outcomes), outcomes
        assert any("not known" in str(each) for each in outcomes)
        assert len(runs) == 3, "each ran once: what may have been committed is not run again"
        other.execute("DROP TRIGGER die ON holdfast.counter")
    assert [put(log, who, who).pos for who in "abc"] == [2, 3, 4]
    assert verify_corpus(corpus).sound
    corpus.close()


def test_a_connection_that_died_is_replaced_and_nothing_of_its_job_is_kept(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    put(log, "a")
    kill = "SELECT pg_terminate_backend(%s)"
    write = log.job([value("state", "lost", 1)])

    def job(tx: Any) -> None:
        write(tx)
        backend(corpus, database, kill)

    with refused(HubUnavailable):
        corpus.write(job)
    assert put(log, "b").pos == 2
    backend(corpus, database, kill)  # between two transactions: nothing was begun, so nobody need know
    assert put(log, "c").pos == 3
    with psycopg.connect(database, autocommit=True) as other:  # readers: asked again without anybody's noticing
        mine = (other.info.backend_pid, corpus.engine._writer.info.backend_pid)
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='holdfast'"
                      " AND pid<>%s AND pid<>%s", mine)  # fmt: skip
    assert names(corpus.page(Filter(newest_first=False))) == ["a", "b", "c"]
    corpus.close()


def test_a_database_that_is_away_is_said_to_be_and_used_again_when_it_is_back(
    postgres: Postgres, tmp_path: Path
) -> None:
    corpus = PostgresCorpus(postgres.database())
    log = log_of(corpus, tmp_path)
    put(log, "a", 1)
    postgres.stop()
    for use in (lambda: put(log, "b"), corpus.last, lambda: corpus.feed(0)):
        with refused(HubUnavailable):
            use()
    postgres.start()
    while True:  # the pause between attempts
        try:
            put(log, "b", 2)
            break
        except HubUnavailable:
            threading.Event().wait(0.02)
    assert names(corpus.feed(0)) == ["a", "b"]
    assert not corpus.unusable
    corpus.close()


# -- histories ----------------------------------------------------------------------------------------------------


def test_processes_share_a_generation_and_a_promotion_begins_another(postgres: Postgres) -> None:
    address = postgres.database()
    one, two = HubDatabase(address), HubDatabase(address)
    assert (one.gen, one.hub_id, one.lineage) == (two.gen, two.hub_id, two.lineage)
    two.close()
    again = HubDatabase(address)
    assert again.lineage == one.lineage, "a start loses nothing, so it ends no generation"
    again.close()
    postgres.stop()
    # A recovery that ends begins a new timeline, as a promotion does.
    (postgres.data / "recovery.signal").touch()
    postgres.settings.append("restore_command=false")
    postgres.start()
    with psycopg.connect(postgres.address()) as other:
        assert other.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").fetchone() == ("00000002",)
    for _ in range(2):
        with refused(IntegrityError):
            one.corpus.write(lambda tx: None)
    assert one.corpus.unusable
    one.close()
    later = HubDatabase(address)
    assert [gen for gen, _ in later.lineage][:-1] == [one.gen]
    assert later.hub_id == one.hub_id
    later.close()


def test_a_newer_database_is_refused_and_a_new_one_is_migrated_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: PostgresCorpus(database), range(4)))
    for corpus in opened:
        corpus.close()
    with psycopg.connect(database, autocommit=True) as other:
        steps = [(number,) for number in range(1, len(migrations()) + 1)]
        assert other.execute("SELECT version FROM holdfast.format ORDER BY version").fetchall() == steps
        other.execute("INSERT INTO holdfast.format VALUES(99)")
    with refused(UsageError):
        PostgresCorpus(database)


def test_no_password_is_ever_shown() -> None:
    for address in ("postgresql://me:s3cret@127.0.0.1:1/x", "host=127.0.0.1 port=1 password=s3cret"):
        with pytest.raises(HubUnavailable) as told:
            Database(address).connect()
        assert "s3cret" not in str(told.value) + told.value.hint + repr(Database(address)) + Database(address).name
    for address in ("me:s3cret/x@host/x", "me:x@s3cret@host/x", "me:s3cret@[::1/x", "me:x/s3cret@host"):
        with pytest.raises(UsageError) as told_usage:
            Database(f"postgresql://{address}")
        told_words = f"{told_usage.value} {told_usage.value.hint} {told_usage.value.__cause__}"
        assert "s3cret" not in told_words, address


# -- rows ---------------------------------------------------------------------------------------------------------


def test_positions_cross_partitions_and_the_chain_stays_whole(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database, partition=50)
    log = log_of(corpus, tmp_path)
    with corpus.moment() as execute:  # a reader in the middle of something must not hold up a new partition
        assert execute("SELECT count(*) FROM rec").fetchone() == (0,)
        log.append([value("state", f"a{n}", n) for n in range(120)])
        for number in range(60):
            put(log, f"b{number}", number)
        assert execute("SELECT count(*) FROM rec").fetchone() == (0,)
    assert [stored.pos for stored in corpus.feed(0, 500, 1 << 20)] == list(range(1, 181))
    sql = "SELECT count(*) FROM pg_inherits WHERE inhparent='rec'::regclass"
    assert corpus.one(sql) == (4,)
    assert verify_corpus(corpus).sound
    corpus.close()


def test_what_postgresql_cannot_hold_is_held(database: str, tmp_path: Path) -> None:
    """NUL in a tag and in searched text, and a tag longer than an index takes, as a node could send them."""
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    odd = "a\0b\1c"
    log.append([message({"to": odd, "body": "grey\0whale"}, msg_id="m1")])
    long = msgspec.structs.replace(message({"body": "x"}, msg_id="m2"), tags=((1, "ü" * 5_000),))
    log.append([long])
    assert names(corpus.page(Filter(to=odd))) == ["m1"]
    assert corpus.page(Filter(to="a\0b")) == []
    while search.fill(corpus):
        pass
    assert names(search.search(corpus, "whale").found) == ["m1"]
    assert corpus.at(2) is not None
    corpus.close()


def test_bodies_lie_as_they_were_written_so_that_sql_can_read_them(database: str, tmp_path: Path) -> None:
    home = HubDatabase(database, settle="acked")
    pen = Pen()
    pen.put("k", {"text": "word " * 500})
    assert pen.items[0].codec == codec.ZSTD

    def job(tx: Any) -> Any:
        chains = home.chains()
        ingest = HubIngest(chains, gen=home.gen, verify=seal.verify)
        ingest.append([wire.Append(home.gen, 1, [pen.segment()], "n")])
        return chains.write(tx, ingest.plan, ingest.tags)

    (stored,) = home.corpus.write(job)
    assert home.corpus.at(1) == stored
    assert content(stored) == {"text": "word " * 500}
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text("utf-8")
    (shown,) = re.findall(r"```sql\n(.*?)```", page, re.S)
    with psycopg.connect(database) as other:
        assert other.execute(shown).fetchall() == [("ada", "state", "k", {"text": "word " * 500})]
    assert verify_corpus(home.corpus).sound
    home.close()


def test_search_has_the_same_words_phrases_and_beginnings(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    texts = ["the quick brown fox", "quick the fox brown", "Straße nach foo_bar", "it's a fox's den", "brownie"]
    for number, text in enumerate(texts):
        put(log, f"k{number}", text, "notes")
    cases = {
        "fox": [3, 1, 0],
        "quick fox": [1, 0],
        '"quick brown"': [0],
        "brown*": [4, 1, 0],
        "strasse": [2],
        "bar": [2],
        "nothing": [],
        '"fox s"': [3],
    }
    for _ in range(2):  # from the tail, and from the index
        for text, wanted in cases.items():
            found = search.search(corpus, text)
            assert names(found.found) == [f"k{number}" for number in wanted], text
        while search.fill(corpus):
            pass
    log.append([value("notes", "k0", "changed")])
    assert names(search.search(corpus, "quick").found) == ["k1"]
    corpus.close()


def test_a_filtered_feed_ends_where_its_bytes_do(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    log = log_of(corpus, tmp_path)
    for number in range(600):
        put(log, f"k{number}", "x" * 100)
    seen, after = [], 0
    while True:
        page = filtered(corpus, after, Wanted(prefix="k"), limit=250)
        seen += names(page.records)
        after = page.pos
        if page.done:
            break
    assert seen == [f"k{number}" for number in range(600)]
    corpus.close()


# -- blobs --------------------------------------------------------------------------------------------------------


def test_blobs_are_put_read_and_resumed_like_files(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(database)
    blobs = BlobTable(corpus.engine, limit=8 << 20)
    data = bytes(range(256)) * 10_000
    digest = hashlib.sha256(data).digest()
    file = tmp_path / "file"
    file.write_bytes(data)
    assert blobs.put(data) == blobs.put(file) == blobs.put(iter([data[:7], data[7:]])) == (digest, len(data))
    assert corpus.one("SELECT count(*) FROM blob") == (1,)
    assert (blobs.has(digest), blobs.size(digest), blobs.verify(digest)) == (True, len(data), True)
    assert blobs.read(digest) == data
    for offset, length in ((0, 10), (1 << 20, 5), ((1 << 20) - 3, 9), (len(data) - 4, 100), (len(data) + 1, 5)):
        for verify in (True, False):
            found = blobs.read(digest, offset, length, verify=verify)
            assert found == data[offset : offset + length], (offset, length)
    with blobs.open(digest) as reader:
        assert reader.read() == data
    assert list(blobs.iter()) == [digest]
    assert blobs.missing([digest, bytes(32)]) == [bytes(32)]
    # an upload in pieces
    other = b"y" * (3 << 20)
    name = hashlib.sha256(other).digest()
    assert blobs.append(name, 0, other[:1000]) == 1000
    with refused(Conflict):
        blobs.append(name, 0, other[:1000])
    assert not blobs.has(name)
    assert blobs.resume(name) == 1000
    assert blobs.append(name, 1000, other[1000:]) == len(other)
    assert blobs.finish(name) == blobs.finish(name) == len(other)
    assert blobs.read(name) == other
    # what is not what its name says
    wrong = bytes(range(32))
    blobs.append(wrong, 0, b"other bytes")
    with refused(BlobCorrupt):
        blobs.finish(wrong)
    assert blobs.resume(wrong) == 0
    with refused(BlobCorrupt):
        blobs.put(b"abc", expect=wrong)
    with refused(NotFound):
        blobs.read(wrong)
    with refused(UsageError):
        blobs.put(bytes(9 << 20))
    # rot is found, and healed by storing it again
    with psycopg.connect(database, autocommit=True) as connection:
        sql = "UPDATE holdfast.chunk SET data=%s WHERE at=0 AND blob=(SELECT id FROM holdfast.blob WHERE digest=%s)"
        connection.execute(sql, (b"z" * (1 << 20), digest))
    assert not blobs.verify(digest)
    with refused(BlobCorrupt):
        blobs.read(digest)
    blobs.put(data)
    assert blobs.read(digest) == data
    blobs.append(wrong, 0, b"begun")
    assert (blobs.sweep(3600), blobs.sweep(0)) == (0, 1)
    assert blobs.delete(digest)
    assert not blobs.delete(digest)
    corpus.close()


def test_many_may_store_the_same_blob(database: str) -> None:
    corpus = PostgresCorpus(database)
    blobs = BlobTable(corpus.engine)
    data = b"same" * 100_000
    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(lambda _: blobs.put(iter([data])), range(12)))
    assert found == {(hashlib.sha256(data).digest(), len(data))}
    assert corpus.one("SELECT count(*) FROM blob") == (1,)
    corpus.close()


def test_whoever_does_not_get_his_turn_to_write_says_so(database: str, tmp_path: Path) -> None:
    corpus = PostgresCorpus(f"{database}&options=-c%20lock_timeout%3D100")
    log = log_of(corpus, tmp_path)
    with psycopg.connect(database) as other:
        other.execute("SELECT * FROM holdfast.counter FOR UPDATE")
        with refused(HubUnavailable):
            put(log, "k")
        assert corpus.last() == 0, "reads go on"
        other.rollback()
    assert put(log, "k").pos == 1
    corpus.close()


def test_many_streams_are_looked_up_in_three_questions(database: str, tmp_path: Path) -> None:
    home = HubDatabase(database, settle="acked")
    pens = [Pen(f"agent-{number}") for number in range(120)]
    for pen in pens:
        pen.put("k", pen.agent)

    def ingest(segments: list[wire.Segment]) -> Any:
        def job(tx: Any) -> Any:
            chains = home.chains()
            ingest = HubIngest(chains, gen=home.gen, verify=seal.verify)
            answers = ingest.append([wire.Append(home.gen, 1, segments, "n")])
            chains.write(tx, ingest.plan, ingest.tags)
            return [verdict.state for verdict in answers[0].verdicts]

        return home.corpus.write(job)

    assert ingest([pen.segment() for pen in pens]) == ["ack"] * 120
    for pen in pens:
        pen.put("k", "again")
    asked: list[str] = []
    with home.corpus.moment() as execute:

        def count(sql: str, args: Any = ()) -> Any:
            asked.append(sql)
            return execute(sql, args)

        facts = home.chains(count).streams([pen.stream for pen in pens])
    assert {stream: (found.agent, len(found.branches)) for stream, found in facts.items()} == {
        pen.stream: (pen.agent, 1) for pen in pens
    }
    assert len(asked) == 6, "a hundred at a time"
    home._memo.clear()
    assert ingest([pen.segment(2) for pen in pens]) == ["ack"] * 120
    assert verify_corpus(home.corpus).sound
    home.close()


def test_what_few_have_is_found_by_its_index_whatever_plan_is_kept(database: str, tmp_path: Path) -> None:
    """A plan that is made once for all names must not walk the many to find the few."""
    with psycopg.connect(database, autocommit=True) as other:
        corpus = PostgresCorpus(database)
        log = log_of(corpus, tmp_path)
        for lot in range(10):
            log.append([message({"n": lot * 200 + n}) for n in range(200)])
        put(log, "rare")
        corpus.close()
        other.execute("ANALYZE holdfast.rec, holdfast.name")
        name = other.execute("SELECT current_database()").fetchone()[0]  # type: ignore[index]
        other.execute(f"ALTER DATABASE {name} SET plan_cache_mode = force_generic_plan")
        walked = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'rec_1_pkey'"
        before = other.execute(walked).fetchone()
        corpus = PostgresCorpus(database)
        for newest in (True, False):
            for _ in range(10):
                assert names(corpus.page(Filter(collection="state", newest_first=newest))) == ["rare"]
                assert corpus.page(Filter(collection="nothing", newest_first=newest)) == []
                assert corpus.page(Filter(agents=("nobody",), newest_first=newest)) == []
        while mailbox.fill(corpus, None):
            pass
        corpus.close()
        here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        while other.execute(here).fetchone() != (0,):
            pass  # what a connection has read is told when it ends
        after = other.execute(walked).fetchone()
        assert before is not None
        assert after is not None
        assert after[0] - before[0] < 5_000, "2,000 for mail that was erased meanwhile; each walk would be as many"
