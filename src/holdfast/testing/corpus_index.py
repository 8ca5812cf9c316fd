"""The laws of an index over a corpus: it finds what `holdfast.query.matches` says, and only sooner.

See `holdfast.testing.corpus`. A model that does everything at random is in tests/stateful/test_index.py.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import codec, query, wire
from holdfast.corpus import SqlCorpus, Stored, index
from holdfast.corpus.index.filling import Filler
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import NotCached, UsageError
from holdfast.integrity import verify_corpus
from holdfast.log import Draft, Log, load, remove, value
from holdfast.log.erasure import erase, mark_of
from holdfast.query import EVERYTHING, AllOf, Condition, Not, where
from holdfast.records import INLINE_BYTES_MAX, SEALED, VALUE
from holdfast.testing.corpus import CorpusContract, log_of, put, refused

PEOPLE: Final = "people"
FIELDS: Final = ("skills", "years", "name", "past.firm", "big")
_SKILLS: Final = ("Python", "SQL", "Rust", "Go", "C")
_CONDITIONS: Final[tuple[Any, ...]] = (
    (EVERYTHING,),
    (where("skills").has("Python") & (where("years") >= 3),),
    (where("skills").has_all(["SQL", "Rust"]),),
    (where("skills").is_in(["Go", "C", None]) | (where("years") == 7),),
    (~where("skills").has("Python"),),
    (Not(no=(where("years") > 2) & where("name").starts("person 1")),),
    (where("years").exists(False),),
    (where("name").starts("person 1") & (where("years") != 4),),
    (where("past.firm") == "B",),
    (where("bio").text("ENGINES writes"),),
    (where("bio").text("python"),),
    (where("name") > "person 20",),
    (where("hobby") == "chess",),
    (where("skills") >= "R", ("skills",)),
    (where("skills") < "G", ("-skills",)),
    (where("skills") < "G", ("skills",)),
    (where("years") <= 4, ("years",)),
    (where("years") <= 4, ("-years",)),
    (where("big") == 2**53,),
    (where("big") > 2**53,),
    (where("hobby").exists(),),
    (where("name") != "x" * 250 + "1",),
    (where("name").starts("x" * 201),),
    (where("name") == "x" * 250 + "1",),
)
_ORDERS: Final = ((), ("years",), ("-years", "name"), ("-skills",), ("name",), ("hobby", "-years"))


def person(number: int) -> dict[str, Any]:
    """Somebody, by a number."""
    found: dict[str, Any] = {
        "name": f"person {number}" if number % 9 else "x" * 250 + str(number % 2),
        "skills": [skill for n, skill in enumerate(_SKILLS) if number % (n + 2) == 0],
        "past": [{"firm": "A"}, {"firm": "B" if number % 5 == 0 else "C"}],
        "bio": "writes engines in Python" if number % 3 else ["writes", "python engines"],
    }
    if number % 4:
        found["years"] = number % 11
    if number % 7 == 0:
        found["big"] = 2**53 + number % 3
    if number % 6 == 0:
        found["hobby"] = "chess" if number % 12 else {"of": "many"}
    return found


def keys_found(
    corpus: SqlCorpus, read: Any, condition: Condition = EVERYTHING, *order: str, limit: int = 7
) -> list[str]:
    """The keys of everything that is found, page by page."""
    asked = index.Query(collection=PEOPLE, condition=condition, order=order, limit=limit)
    found: list[str] = []
    while True:
        page = index.find(corpus, asked, read)
        found += [stored.record.key for stored in page.found]
        if page.cursor is None:
            return found
        assert len(page.found) == limit
        asked = msgspec.structs.replace(asked, after=page.cursor)


def entries(corpus: SqlCorpus) -> int:
    """How many entries the index has."""
    return int(corpus.one("SELECT count(*) FROM entry")[0])


def evict(tx: SqlTransaction, pos: int) -> None:
    """Takes a body away, as who makes room does."""
    tx.drop_body(pos, wire.EVICTED)


def run(tx: SqlTransaction, sql: str) -> None:
    """Runs a statement."""
    tx.execute(sql)


class Indexes(CorpusContract):
    """What is declared is found by its fields: all of it, nothing else, in order, whatever happened in between."""

    def reader(self, log: Log) -> Any:
        """What loads the values of a log."""
        return lambda stored: load(stored, log.blobs)

    def test_pages_hold_what_the_conditions_mean_declared_or_not(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            people = {f"k{n:02}": person(n) for n in range(40)}
            log.append([value(PEOPLE, key, held) for key, held in people.items()])
            log.append([value(PEOPLE, "text", "no object"), value("other", "k", person(1))])
            read = self.reader(log)
            for fields, words in (((), ()), (FIELDS[:2], ()), (FIELDS, ("bio",)), ((*FIELDS, "hobby"), ("bio",))):
                if words or fields:
                    index.declare(log.corpus, PEOPLE, fields, words=words)
                for number, (condition, *orders) in enumerate(_CONDITIONS):
                    order = (*orders, *_ORDERS)[number % len(_ORDERS) if not orders else 0]
                    wanted = [key for key, held in people.items() if query.matches(condition, held)]
                    found = keys_found(log.corpus, read, condition, *order)
                    assert sorted(found) == wanted, (condition, order, fields)
                    assert found == self.in_order(wanted, people, order), (condition, order, fields)
                    asked = index.Query(collection=PEOPLE, condition=condition)
                    assert index.count(log.corpus, asked, read) == len(wanted)
            assert index.declared(log.corpus, PEOPLE) == (sorted([*FIELDS, "hobby"]), ["bio"])

    def in_order(self, keys: list[str], people: dict[str, Any], order: Sequence[str]) -> list[str]:
        """Keys by what they hold; they were written in the order of themselves."""
        keys = sorted(keys, reverse=bool(order) and order[-1].startswith("-"))
        for name in reversed(order):
            down = name.startswith("-")
            field = name.removeprefix("-")
            # A sort that is reversed keeps the order of equals, too.
            keys.sort(key=lambda key: index.keys_of(people[key], field)[-1 if down else 0], reverse=down)
        return keys

    def test_a_cursor_is_of_its_query_and_nothing_else_is_one(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, FIELDS)
            log.append([value(PEOPLE, f"k{n}", person(n)) for n in range(5)])
            read = self.reader(log)
            asked = index.Query(collection=PEOPLE, order=("years",), limit=2)
            cursor = index.find(log.corpus, asked, read).cursor
            assert cursor is not None
            wrong: list[Any] = [cursor[:-3], cursor + "A", "", "é", "AAAA", 7]
            others = [
                index.Query(collection=PEOPLE, order=("-years",), after=cursor),
                index.Query(collection=PEOPLE, order=("years",), condition=where("years") > 1, after=cursor),
                index.Query(collection="other", order=("years",), after=cursor),
                index.Query(collection=PEOPLE, order=("years",), agents=("ada",), after=cursor),
                *(msgspec.structs.replace(asked, after=each) for each in wrong),
                msgspec.structs.replace(asked, limit=0),
                msgspec.structs.replace(asked, limit=index.LIMIT_MAX + 1),
                msgspec.structs.replace(asked, order=("years", "-years")),
                msgspec.structs.replace(asked, order=("",)),
            ]
            for other in others:
                with refused(UsageError):
                    index.find(log.corpus, other, read)
            for func, field in (("median", "years"), ("sum", "")):
                with refused(UsageError):
                    index.aggregate(log.corpus, asked, read, of=[(func, field)])  # type: ignore[list-item]
            with refused(UsageError):
                index.declare(log.corpus, PEOPLE, ["a..b"])

    def test_every_write_before_a_question_is_in_its_answer_while_others_write_and_ask(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as corpus:
            log = log_of(corpus, tmp_path)
            index.declare(corpus, PEOPLE, FIELDS)
            read, stop = self.reader(log), threading.Event()

            def fill() -> None:
                while not stop.is_set():
                    index.fill(corpus, lot=3)

            def work(who: int) -> None:
                mine: set[str] = set()
                for number in range(12):
                    key = f"{who}/{number % 5}"
                    if key in mine and number % 2:
                        log.append([remove(PEOPLE, key)])
                        mine.discard(key)
                    else:
                        log.append([value(PEOPLE, key, {"name": str(who), "years": number})])
                        mine.add(key)
                    assert sorted(keys_found(corpus, read, where("name") == str(who))) == sorted(mine)

            filler = threading.Thread(target=fill)
            filler.start()
            try:
                with ThreadPoolExecutor(3) as pool:
                    list(pool.map(work, range(3)))
            finally:
                stop.set()
                filler.join()
            assert [str(finding) for finding in verify_corpus(corpus).findings] == []

    def test_a_fill_that_was_broken_off_goes_on_where_it_was(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            log.append([value(PEOPLE, f"k{n:02}", person(n)) for n in range(20)])
            log.append([remove(PEOPLE, "k1", prefix=True)])
            log.append([value(PEOPLE, "k15", person(15))])
            wanted = [f"k{n:02}" for n in (*range(10), 15)]
            index.declare(log.corpus, PEOPLE, ["years"])
        for fields in ([], ["skills", "name"], []):
            # Each time somebody comes, does a little, and is gone: what he did is not done again.
            before: Any = None
            while True:
                with self.opened(tmp_path) as corpus:
                    if fields:
                        index.declare(corpus, PEOPLE, fields)
                        fields = []
                    if not index.fill(corpus, lot=2):
                        break
                    at = corpus.query("SELECT built FROM field ORDER BY id"), corpus.meta("index_pos"), entries(corpus)
                    assert at != before
                    before = at
        with self.one_log(tmp_path) as log:
            assert keys_found(log.corpus, self.reader(log)) == wanted
            python = [key for key in wanted if int(key[1:]) % 2 == 0]
            assert keys_found(log.corpus, self.reader(log), where("skills").has("Python")) == python
            assert verify_corpus(log.corpus).sound

    def test_a_deletion_by_prefix_is_taken_out_lot_by_lot(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["years"])
            log.append([value(PEOPLE, f"a/{n}", {"years": n}) for n in range(9)] + [value(PEOPLE, "b", {"years": 1})])
            read = self.reader(log)
            assert len(keys_found(log.corpus, read)) == 10
            log.append([remove(PEOPLE, "a/", prefix=True), value(PEOPLE, "a/3", {"years": 30})])
            items = [10]
            while index.fill(log.corpus, lot=2):
                items.append(log.corpus.one("SELECT count(*) FROM item")[0])
            assert items[:5] == [10, 8, 6, 4, 2], "no transaction takes long"
            assert keys_found(log.corpus, read) == ["b", "a/3"], "a key that begins anew stands behind the others"
            assert verify_corpus(log.corpus).sound

    def test_what_is_sealed_is_never_written_down_and_found_by_who_has_the_key(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, FIELDS)
            sealed = Draft("put", PEOPLE, "hidden", codec.FMT_BYTES, b"noise", VALUE | SEALED, kid=bytes(range(16)))
            log.append([value(PEOPLE, "open", {"name": "open"}), sealed])
            read = self.reader(log)
            assert keys_found(log.corpus, read) == ["open"]

            def unseal(stored: Stored) -> Any:
                return {"name": "secret", "years": 9} if stored.record.flags & SEALED else read(stored)

            assert keys_found(log.corpus, unseal, EVERYTHING, "-years") == ["hidden", "open"]
            assert keys_found(log.corpus, unseal, where("name") == "secret") == ["hidden"]
            total = index.aggregate(log.corpus, index.Query(collection=PEOPLE), unseal, of=[("sum", "years")])
            assert total[0].results == (9,)
            assert log.corpus.query("SELECT v FROM entry WHERE v=?", (query.sort_key("secret"),)) == []
            assert keys_found(log.corpus, read, where("name") == "secret") == []

    def test_what_is_erased_leaves_the_index_with_its_body(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, FIELDS)
            read = self.reader(log)
            found = put(log, "k", {"name": "quagga"}, PEOPLE)
            assert keys_found(log.corpus, read, where("name") == "quagga") == ["k"]
            erase(log, [], [mark_of(found.record)])
            assert (entries(log.corpus), keys_found(log.corpus, read)) == (0, [])
            assert verify_corpus(log.corpus).sound
            put(log, "k", {"name": "zebra"}, PEOPLE)
            assert keys_found(log.corpus, read, where("name") == "zebra") == ["k"]

    def test_an_erasure_between_the_reading_and_the_writing_of_a_lot_wins(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, FIELDS)
            found = put(log, "k", {"name": "quagga"}, PEOPLE)
            write = log.corpus.write

            def first_erase(job: Any) -> Any:
                log.corpus.write = write  # type: ignore[method-assign]
                erase(log, [], [mark_of(found.record)])
                return write(job)

            log.corpus.write = first_erase  # type: ignore[method-assign]
            index.fill(log.corpus)
            assert entries(log.corpus) == 0
            assert keys_found(log.corpus, self.reader(log)) == []

    def test_a_value_that_is_written_while_a_field_is_added_keeps_what_it_holds_now(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["name"])
            put(log, "k", {"name": "before", "years": 1}, PEOPLE)
            read = self.reader(log)
            assert keys_found(log.corpus, read) == ["k"]
            index.declare(log.corpus, PEOPLE, ["years"])
            write = log.corpus.write

            def first_put(job: Any) -> Any:
                log.corpus.write = write  # type: ignore[method-assign]
                put(log, "k", {"name": "now", "years": 2}, PEOPLE)
                mark = Filler(log.corpus)
                assert mark.step()
                return write(job)

            log.corpus.write = first_put  # type: ignore[method-assign]
            index.fill(log.corpus)
            assert (keys_found(log.corpus, read, where("years") == 1), entries(log.corpus)) == ([], 2)
            assert keys_found(log.corpus, read, where("years") == 2) == ["k"]

    def test_a_value_that_is_not_here_is_found_by_what_is_known_of_it_and_fetched_if_need_be(
        self, tmp_path: Path
    ) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["name"])
            large = {"name": "large", "rest": "z" * INLINE_BYTES_MAX}
            first = put(log, "known", {"name": "known", "years": 3}, PEOPLE)
            read, loads = self.reader(log), list[str]()
            assert keys_found(log.corpus, read) == ["known"]
            log.append([value(PEOPLE, "large", large), value(PEOPLE, "unknown", {"name": "unknown"})])
            for pos in (first.pos, log.corpus.last()):
                log.corpus.write(partial(evict, pos=pos))

            def fetch(stored: Stored) -> Any:
                loads.append(stored.record.key)
                known = {"known": {"name": "known", "years": 3}, "unknown": {"name": "unknown"}}
                return known.get(stored.record.key) or read(stored)

            with refused(NotCached):
                keys_found(log.corpus, read, where("name") == "nobody")
            assert keys_found(log.corpus, fetch, where("name").is_in(["known", "large", "unknown"])) == [
                "known",
                "large",
                "unknown",
            ]
            assert loads == ["large", "unknown"] or loads == ["unknown"]
            assert keys_found(log.corpus, read, where("name") == "unknown") == ["unknown"], "it is indexed by now"
            with refused(NotCached):
                keys_found(log.corpus, read, AllOf(all=(where("name") == "known", where("years") == 3)))
            index.declare(log.corpus, PEOPLE, ["years"])
            assert keys_found(log.corpus, fetch, where("years") == 3) == ["known"]

    def test_a_value_that_is_written_while_the_one_before_is_fetched_is_the_one_that_counts(
        self, tmp_path: Path
    ) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["name"])
            put(log, "k", {"name": "before"}, PEOPLE)
            log.corpus.write(partial(evict, pos=log.corpus.last()))
            read = self.reader(log)

            def fetch(stored: Stored) -> Any:
                if stored.body is not None:
                    return read(stored)
                put(log, "k", {"name": "now"}, PEOPLE)
                while index.fill(log.corpus):
                    pass
                return {"name": "before"}

            assert keys_found(log.corpus, fetch, where("name") == "before") == []
            assert keys_found(log.corpus, read, where("name") == "now") == ["k"]
            assert entries(log.corpus) == 1

    def test_an_index_that_lost_its_mark_or_rows_is_made_again_as_it_was(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            log.append([value(PEOPLE, f"k{n:02}", person(n)) for n in range(15)])
            log.append([remove(PEOPLE, "k03"), value(PEOPLE, "k05", person(6))])
            put(log, "k03", person(3), PEOPLE)
            index.declare(log.corpus, PEOPLE, FIELDS)
            read = self.reader(log)
            whole = keys_found(log.corpus, read, EVERYTHING, "-years")
            assert keys_found(log.corpus, read)[-1] == "k03", "what was deleted began anew"
            tables = ("item", "entry", "field")
            kept = [log.corpus.query(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]
            damages: tuple[Any, ...] = (
                lambda tx: tx.execute("DELETE FROM meta WHERE k='index_pos'"),
                lambda tx: tx.set_meta("index_pos", b"\xff"),
                index.reset,
            )
            for damage in damages:
                log.corpus.write(damage)
                assert keys_found(log.corpus, read, EVERYTHING, "-years") == whole
                assert [log.corpus.query(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables] == kept

    def test_what_the_index_should_not_say_is_found_by_a_scan(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["years"])
            log.append([value(PEOPLE, f"k{n}", {"years": n}) for n in range(5)])
            read = self.reader(log)
            for harm in (
                "UPDATE item SET pos=2 WHERE id=1",
                "DELETE FROM entry WHERE item=3",
                "DELETE FROM item WHERE id=3",
                "UPDATE entry SET item=77 WHERE item=4",
                "UPDATE item SET bare=-1 WHERE id=5",
            ):
                keys_found(log.corpus, read)
                assert verify_corpus(log.corpus).sound
                log.corpus.write(partial(run, sql=harm))
                assert {finding.check for finding in verify_corpus(log.corpus).findings} == {"index"}, harm
                log.corpus.write(index.reset)

    def test_groups_add_up(self, tmp_path: Path) -> None:
        with self.one_log(tmp_path) as log:
            index.declare(log.corpus, PEOPLE, ["skills", "years"])
            held = [(["a", "b"], 1), (["a"], 2.5), ([], 4), (["b"], None), (["b", "b"], [10, 20, 10])]
            log.append([value(PEOPLE, f"k{n}", {"skills": each[0], "years": each[1]}) for n, each in enumerate(held)])
            of: Any = [("count", ""), ("sum", "years"), ("avg", "years"), ("min", "years"), ("max", "years")]
            of.append(("distinct", "years"))
            for read in (self.reader(log),):
                asked = index.Query(collection=PEOPLE)
                found = index.aggregate(log.corpus, asked, read, group="skills", of=of)
                assert [(each.by, each.results) for each in found] == [
                    (None, (1, 4, 4, 4, 4, 1)),
                    ("a", (2, 3.5, 1.75, 1, 2.5, 2)),
                    ("b", (3, 31, 31 / 3, 1, 20, 3)),
                ]
                assert index.aggregate(log.corpus, asked, read, of=[("count", "years")])[0].results == (5,)
                none = msgspec.structs.replace(asked, condition=where("years") > 99)
                assert index.aggregate(log.corpus, none, read, of=of)[0].results == (0, None, None, None, None, 0)
                assert index.aggregate(log.corpus, none, read, group="skills", of=of) == []
