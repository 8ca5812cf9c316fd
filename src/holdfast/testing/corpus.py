"""The laws of `holdfast.corpus.port.Corpus` as tests, one class an aspect, for every engine there will ever be.

    class Sqlite:
        def make(self, directory):
            return SqliteCorpus(directory / "log.db")

    class TestSqliteBasic(Sqlite, Basic): ...

pytest collects them; nothing here imports it. The aspects about many writers are in `holdfast.testing.corpus_many`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast import codec, records
from holdfast.clock import Clock, pack
from holdfast.corpus import Branch, Filter, SqlCorpus, Stored
from holdfast.errors import Conflict, UsageError
from holdfast.log import Log, message, remove, value
from holdfast.objects import BlobFiles
from holdfast.records import MORE, TOMBSTONE
from holdfast.testing.clock import SettableClock

KEY = bytes(range(32))
"""The public key of all streams here; nothing is signed."""


class Maker(Protocol):
    """What a test class of an engine has."""

    def make(self, directory: Path) -> SqlCorpus:
        """The corpus in this directory, made if it is not there."""
        ...


class CorpusContract:
    """What the aspects share; an engine's class gives `make`."""

    def make(self, directory: Path) -> SqlCorpus:
        """The corpus in this directory, made if it is not there; opening it twice opens the same."""
        raise NotImplementedError

    @contextlib.contextmanager
    def opened(self, directory: Path) -> Iterator[SqlCorpus]:
        """The corpus, closed when the block ends."""
        corpus = self.make(directory)
        try:
            yield corpus
        finally:
            corpus.close()

    @contextlib.contextmanager
    def one_log(self, directory: Path) -> Iterator[Log]:
        """A log in the corpus, of the agent `ada`."""
        with self.opened(directory) as corpus:
            yield log_of(corpus, directory)


def log_of(corpus: SqlCorpus, directory: Path, agent: str = "ada", wall: Clock | None = None) -> Log:
    """The log of an agent in a corpus; its stream is begun if it is not there."""
    stream = records.stream_id(KEY, agent)
    start = records.genesis(stream)
    inc = stream[::-1]
    new = Branch(0, stream, inc, agent, KEY, KEY, True, 0, start, 0, start)
    branch = corpus.write(lambda tx: (tx.branches(stream) or [tx.open_branch(new)])[0])
    return Log(corpus, branch, blobs=BlobFiles(directory / "blobs"), wall=wall or SettableClock())


def put(log: Log, key: str, content: Any = 1, collection: str = "state") -> Stored:
    """One value written, as it is stored."""
    return log.append([value(collection, key, content)])[0]


def names(found: Sequence[Stored]) -> list[str]:
    """The keys of records."""
    return [stored.record.key for stored in found]


def content(stored: Stored | None) -> Any:
    """The value in a record."""
    assert stored is not None
    return codec.deserialise(stored.record.fmt, stored.payload())


@contextlib.contextmanager
def refused(error: type[Exception]) -> Iterator[None]:
    """The block must raise this."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"{error.__name__} was not raised")


class Basic(CorpusContract):
    """What is read is what was written."""

    def test_a_new_corpus_is_empty(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            assert (corpus.last(), corpus.at(1), corpus.feed(0, 10, 1 << 20)) == (0, None, [])
            assert corpus.newest("ada", "state", "k") is None
            assert list(corpus.versions("ada", "state", "k")) == []
            assert corpus.keys("ada", "state", "", "", 10) == []
            assert (corpus.page(Filter()), corpus.count(Filter(), 10)) == ([], 0)

    def test_every_kind_of_record_is_read_back_bit_for_bit(self, tmp_path: Path) -> None:
        drafts = [
            value("state", "json", {"a": [1, 2.5, None, "ü"]}),
            value("state", "text", "Grüße " * 100),
            value("state", "bytes", bytes(range(256)) * 4),
            value("state", "", b""),
            value("state", "blob", b"x" * (records.INLINE_BYTES_MAX + 1), author="curl@laptop"),
            remove("state", "json", reason="done"),
            remove("state", "te", prefix=True),
            message({"body": "hello", "to": "boss", "task": "t", "thread": "th"}, msg_id="m1"),
        ]
        with self.one_log(tmp_path) as log:
            written = [log.append([draft])[0] for draft in drafts] + log.append(drafts[:4])
            assert [log.corpus.at(stored.pos) for stored in written] == written
        with self.one_log(tmp_path) as log:
            assert [log.corpus.at(stored.pos) for stored in written] == written
            assert [stored.payload() for stored in written[:3]] == [draft.payload for draft in drafts[:3]]
            assert written[4].is_blob
            assert log.blobs.read(records.read_blob_reference(written[4].payload())[0])[:1] == b"x"

    def test_the_newest_value_is_the_last_one_written(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for turn in range(5):
                put(log, "k", turn)
            assert content(log.corpus.newest("ada", "state", "k")) == 4
            assert log.corpus.newest("ada", "state", "K") is None
            assert log.corpus.newest("ada", "other", "k") is None
            assert log.corpus.newest("bob", "state", "k") is None
            log.append([remove("state", "k")])
            assert log.corpus.newest("ada", "state", "k") is None
            put(log, "k", 5)
            assert content(log.corpus.newest("ada", "state", "k")) == 5

    def test_positions_begin_at_1_and_have_no_gaps(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            assert [put(log, f"{n}").pos for n in range(20)] == list(range(1, 21))
            assert log.corpus.last() == 20

    def test_the_chain_starts_at_the_genesis_and_every_link_is_found(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            written = [put(log, "k", n) for n in range(10)]
            branch = log.branch.id
            assert log.corpus.link_at(branch, 0) == records.genesis(log.branch.stream)
            for stored in written:
                record = stored.record
                assert log.corpus.link_at(branch, record.seq) == record.link
                before = log.corpus.link_at(branch, record.seq - 1)
                assert before is not None
                records.verify_link(before, records.encode_header(record), record.link, record.seq)
            assert log.corpus.link_at(branch, 11) is None


class History(CorpusContract):
    """Nothing that was written is ever out of reach."""

    def test_versions_come_newest_first_and_count_from_1(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            written = [put(log, "k", n) for n in range(6)]
            put(log, "other")
            found = list(log.versions("state", "k"))
            assert found == written[::-1]
            assert [stored.record.key_version for stored in found] == [6, 5, 4, 3, 2, 1]
            assert found[-1].record.base == records.ZERO32
            assert [newer.record.base for newer in found[:-1]] == [older.record.link for older in found[1:]]

    def test_tombstones_are_versions(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "k", 1)
            log.append([remove("state", "k", reason="done")])
            put(log, "k", 3)
            found = list(log.versions("state", "k"))
            assert [stored.gone for stored in found] == [False, True, False]
            assert content(found[1]) == {"reason": "done"}
            assert [stored.record.key_version for stored in found] == [3, 2, 1]

    def test_a_tombstone_of_a_prefix_is_in_the_history_of_what_it_hid_and_of_nothing_else(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "a/1", 1)
            put(log, "b/1", 1)
            hid = log.append([remove("state", "a/", prefix=True)])[0]
            put(log, "a/1", 2)
            assert [stored.pos for stored in log.versions("state", "a/1")] == [4, hid.pos, 1]
            assert [stored.pos for stored in log.versions("state", "b/1")] == [2]

    def test_expectations_are_held_against_the_newest_version(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            first = log.append([value("state", "k", 1, expect=0)])[0]
            for wrong in (0, 2, "00" * 32):
                with refused(Conflict):
                    log.append([value("state", "k", 2, expect=wrong)])
            log.append([value("state", "k", 2, expect=first.record.link.hex())])
            log.append([remove("state", "k", expect=2)])
            log.append([value("state", "k", 3, expect=0)])
            assert log.corpus.last() == 4


class Paging(CorpusContract):
    """Pages are cut by position, so none skips or repeats, and filters narrow them."""

    def test_pages_in_both_directions_meet_every_record_once(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for number in range(25):
                put(log, f"{number:02}")
            for newest_first in (True, False):
                seen: list[str] = []
                after: int | None = None
                while found := log.corpus.page(Filter(newest_first=newest_first, after=after, limit=7)):
                    seen += names(found)
                    after = found[-1].pos
                want = [f"{number:02}" for number in range(25)]
                assert seen == (want[::-1] if newest_first else want)

    def test_a_page_that_is_read_while_others_write_skips_nothing(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for number in range(10):
                put(log, f"{number}")
            first = log.corpus.page(Filter(newest_first=False, limit=5))
            put(log, "late")
            rest = log.corpus.page(Filter(newest_first=False, after=first[-1].pos))
            assert names(first + rest) == [*map(str, range(10)), "late"]

    def test_every_filter_narrows(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "k", 1)
            put(log, "k", 2, "notes")
            log.append([remove("state", "k")])
            for number, to in enumerate(("boss", "bob", "boss")):
                envelope = {"to": to, "task": f"t{number % 2}", "thread": "th", "body": "x"}
                log.append([message(envelope, msg_id=f"m{number}", kind="report" if number == 2 else "message")])
            cases: list[tuple[dict[str, Any], list[int]]] = [
                ({}, [1, 2, 3, 4, 5, 6]),
                ({"agents": ("ada",)}, [1, 2, 3, 4, 5, 6]),
                ({"agents": ("ada", "bob")}, [1, 2, 3, 4, 5, 6]),
                ({"agents": ("bob",)}, []),
                ({"collection": "state"}, [1, 3]),
                ({"collection": "state", "kinds": ("delete",)}, [3]),
                ({"collection": "nowhere"}, []),
                ({"kinds": ("put", "delete")}, [1, 2, 3]),
                ({"key": "k"}, [1, 2, 3]),
                ({"key": "k", "collection": "notes"}, [2]),
                ({"to": "boss"}, [4, 6]),
                ({"to": "boss", "task": "t0"}, [4, 6]),
                ({"to": "bob", "task": "t0"}, []),
                ({"task": "t1", "thread": "th", "agents": ("ada",), "collection": "messages"}, [5]),
                ({"to": "boss", "kinds": ("report",)}, [6]),
                ({"thread": "' OR 1=1 --"}, []),
            ]
            for wanted, positions in cases:
                found = log.corpus.page(Filter(newest_first=False, **wanted))
                assert [stored.pos for stored in found] == positions, wanted
                assert log.corpus.count(Filter(**wanted), 100) == len(positions), wanted
                assert log.corpus.count(Filter(**wanted), 2) == min(2, len(positions)), wanted

    def test_times_bound_a_page_by_the_writers_stamp(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            wall = SettableClock(1_000_000)
            log = log_of(corpus, tmp_path, wall=wall)
            for _ in range(10):
                put(log, f"{wall.now_ms()}")
                wall.advance(1)
            since, until = pack(1_003_000), pack(1_006_000)
            assert names(corpus.page(Filter(since=since, until=until, newest_first=False))) == [
                "1003000",
                "1004000",
                "1005000",
            ]
            assert corpus.count(Filter(since=since), 100) == 7
            for wanted, count in (((since, until), 3), ((until, since), 0), ((0, since), 3), ((until, 1 << 62), 4)):
                which = Filter(agents=("ada",), since=wanted[0], until=wanted[1])
                assert (len(corpus.page(which)), corpus.count(which, 100)) == (count, count)
            assert corpus.page(Filter(agents=("nobody",), since=since)) == []

    def test_keys_come_in_order_and_in_pages(self, tmp_path: Path) -> None:
        odd = [
            "",
            " ",
            "a",
            "a/",
            "a/1",
            "a/2",
            "aa",
            "b",
            "z",
            "~",
            "é",
            "日本",
            "\uffff",
            "\uffffx",
            "🌊",
            "\U0010ffff",
        ]
        with self.one_log(tmp_path) as log:
            for key in reversed(odd):
                put(log, key, key)
            for limit in (2, 3, 100):
                found = log.corpus.keys("ada", "state", "", "", limit)
                seen = names(found)
                while found := log.corpus.keys("ada", "state", "", seen[-1], limit):
                    seen += names(found)
                assert seen == odd
            assert [content(stored) for stored in log.corpus.keys("ada", "state", "", "", 100)] == odd

    def test_a_prefix_selects_the_keys_that_start_with_it_and_no_others(self, tmp_path: Path) -> None:
        keys = [
            "a",
            "a%",
            "a_",
            "ab",
            "a\uffff",
            "a\U0010ffff",
            "a\U0010ffffz",
            "b",
            "\U0010ffff",
            "\U0010ffffq",
            "\ud7ff",
            "\ue000",
        ]
        with self.one_log(tmp_path) as log:
            for key in keys:
                put(log, key)
            for prefix in ["", "a", "a%", "a_", "ab", "b", "c", "a\U0010ffff", "\U0010ffff", "\ud7ff", "\uffff"]:
                want = sorted(key for key in keys if key.startswith(prefix))
                assert names(log.corpus.keys("ada", "state", prefix, "", 100)) == want, repr(prefix)


class Feed(CorpusContract):
    """Whoever has read up to a position has missed nothing below it."""

    def test_a_feed_meets_every_record_once_whatever_the_page(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for number in range(40):
                put(log, f"{number}", "x" * (number * 10))
            for limit, most in ((1, 1 << 20), (7, 1 << 20), (500, 1), (500, 2000), (500, 1 << 20)):
                seen: list[int] = []
                while found := log.corpus.feed(seen[-1] if seen else 0, limit, most):
                    assert len(found) <= limit
                    seen += [stored.pos for stored in found]
                assert seen == list(range(1, 41))

    def test_a_feed_is_never_cut_inside_a_batch(self, tmp_path: Path) -> None:
        sizes = [1, 5, 1, 1, 120, 2, 500, 3, 1]
        with self.one_log(tmp_path) as log:
            for turn, size in enumerate(sizes):
                log.append([value("state", f"{turn}/{number}", "x" * 50) for number in range(size)])
            for limit, most in ((1, 1 << 20), (3, 1 << 20), (100, 1 << 20), (500, 1), (500, 5000)):
                for reader in (log.corpus.feed, lambda *args: log.corpus.chain(log.branch.id, *args)):
                    seen, after = [], 0
                    while found := reader(after, limit, most):
                        assert not found[-1].record.flags & MORE, (limit, most)
                        seen += found
                        after = found[-1].pos
                    assert [stored.pos for stored in seen] == list(range(1, sum(sizes) + 1))

    def test_a_chain_is_read_from_any_number(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for number in range(10):
                put(log, f"{number}")
            for after in range(12):
                found = log.corpus.chain(log.branch.id, after, 500, 1 << 20)
                assert [stored.record.seq for stored in found] == list(range(after + 1, 11))


class Batches(CorpusContract):
    """All or none, in order, and marked as one."""

    def test_all_but_the_last_record_say_that_the_batch_goes_on(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for size in (1, 2, 500):
                flags = [stored.record.flags & MORE for stored in log.append([value("s", "k", n) for n in range(size)])]
                assert flags == [MORE] * (size - 1) + [0]

    def test_a_batch_sees_its_own_writes(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            log.append([value("s", "k", 1, expect=0), value("s", "k", 2, expect=1), remove("s", "k", expect=2)])
            assert [stored.record.key_version for stored in log.versions("s", "k")] == [3, 2, 1]

    def test_one_conflict_undoes_the_whole_batch(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "k")
            with refused(Conflict):
                log.append([value("new collection", "a", 1), value("state", "k", 2, expect=7)])
            assert log.corpus.last() == 1
            assert log.corpus.newest("ada", "new collection", "a") is None
            assert [stored.record.seq for stored in log.append([value("state", "k", 2, expect=1)])] == [2]

    def test_more_than_a_batch_may_hold_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for drafts in ([], [value("s", "k", 1)] * 501):
                with refused(UsageError):
                    log.append(drafts)
            assert log.corpus.last() == 0


class Names(CorpusContract):
    """Names are what they were, whatever they are."""

    def test_names_that_look_alike_stay_apart(self, tmp_path: Path) -> None:
        alike = ["a", "A", "ä", "a\u0308", " a", "a ", "%", "_", "'", '"', "put", "0", "\u00df", "ss", "c" * 255]
        with self.one_log(tmp_path) as log:
            for number, name in enumerate(alike):
                put(log, name, number, name)
            for number, name in enumerate(alike):
                found = log.corpus.newest("ada", name, name)
                assert content(found) == number
                assert found is not None
                assert (found.record.collection, found.record.key) == (name, name)
                assert len(log.corpus.page(Filter(collection=name))) == 1

    def test_one_text_may_be_agent_author_kind_and_collection_at_once(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path, agent="put")
            stored = log.append([value("put", "put", "put", author="put")])[0]
            assert corpus.at(stored.pos) == stored
            assert corpus.agents() == ["put"]


class Scopes(CorpusContract):
    """A deletion that cascades is one record, and every view hides what is older than it."""

    def test_a_prefix_hides_what_starts_with_it_until_it_is_written_again(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            for key in ("a", "a/1", "a/2", "a%", "b/1", ""):
                put(log, key)
                put(log, key, 1, "other")
            log.append([remove("state", "a/", prefix=True)])
            assert names(log.corpus.keys("ada", "state", "", "", 100)) == ["", "a", "a%", "b/1"]
            assert log.corpus.newest("ada", "state", "a/1") is None
            assert log.corpus.collections("ada") == [("other", 6), ("state", 4)]
            back = put(log, "a/1", "again")
            assert back.record.key_version == 2
            assert names(log.corpus.keys("ada", "state", "a/", "", 100)) == ["a/1"]
            assert names(log.corpus.keys("ada", "other", "a/", "", 100)) == ["a/1", "a/2"]

    def test_hidden_keys_have_no_value_to_expect(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            put(log, "a/1")
            log.append([remove("state", "a/", prefix=True)])
            with refused(Conflict):
                log.append([value("state", "a/1", 2, expect=1)])
            log.append([value("state", "a/1", 2, expect=0)])
            assert content(log.corpus.newest("ada", "state", "a/1")) == 2

    def test_prefixes_at_the_ends_of_the_alphabet(self, tmp_path: Path) -> None:
        top = "\U0010ffff"
        keys = ["", "a", "b", f"b{top}", f"b{top}z", "c", top, f"{top}{top}"]
        for number, prefix in enumerate(("", "b", f"b{top}", top, "zz")):
            directory = tmp_path / str(number)
            directory.mkdir()
            with self.one_log(directory) as log:
                for key in keys:
                    put(log, key)
                hid = log.append([remove("state", prefix, prefix=True)])[0]
                assert hid.record.flags & TOMBSTONE
                left = sorted(key for key in keys if not key.startswith(prefix))
                assert names(log.corpus.keys("ada", "state", "", "", 100)) == left, repr(prefix)
