"""The index against a plain dict: whatever is put, deleted, erased, evicted, declared or broken, both find the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from holdfast import codec, query, wire
from holdfast.corpus import SqlCorpus, SqliteCorpus, Stored, index
from holdfast.corpus.index import looking, question, ways
from holdfast.corpus.index.fields import MARK
from holdfast.corpus.postgres import PostgresCorpus
from holdfast.integrity import verify_corpus
from holdfast.log import load as read_log
from holdfast.log import remove, value
from holdfast.log.drafts import Draft
from holdfast.log.erasure import erase, mark_of
from holdfast.query import AllOf, AnyOf, Condition, Not, Test
from holdfast.records import INLINE_BYTES_MAX, SEALED, VALUE
from holdfast.testing.corpus import log_of
from tests.services import shared_postgres

PEOPLE = "people"
FIELDS = ["skills", "years", "name", "past.firm", "odd"]
KEYS = st.sampled_from(["", "a", "a/1", "ab", "ü"])
PREFIXES = st.sampled_from(["", "a", "a/", "b", "z"])
LONG = "x" * 250
SKILLS = st.sampled_from(["Python", "SQL", "Rust", "C", "", LONG + "1", LONG + "2"])
NUMBERS = st.one_of(st.integers(-2, 4), st.sampled_from([0.5, -0.0, 2**53, 2**53 + 1, 2**60, -(10**30)]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, SKILLS)
ODD = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.just({}), st.just([{}]), st.just({"deep": 1}))
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "skills": st.lists(SKILLS, max_size=3),
        "years": NUMBERS | st.none(),
        "name": SKILLS,
        "past": st.lists(st.fixed_dictionaries({}, optional={"firm": SKILLS}), max_size=2),
        "odd": ODD,
        "bio": st.sampled_from(["writes Python", "Python and SQL", "rust_never sleeps", ["one Python", "other SQL"]]),
    },
)
SCALAR_TESTS = st.tuples(st.sampled_from(["eq", "lt", "le", "gt", "ge"]), SCALARS)
TESTS = st.builds(
    lambda field, test: Test(field=field, op=test[0], value=test[1]),
    st.sampled_from(FIELDS),
    st.one_of(
        SCALAR_TESTS,
        st.tuples(st.just("in"), st.lists(SCALARS, max_size=3).map(tuple)),
        st.tuples(st.just("starts"), st.sampled_from(["", "P", "SQ", LONG[:200], LONG[:220], LONG + "1"])),
        st.tuples(st.just("exists"), st.booleans()),
    ),
).filter(lambda test: test.op not in ("lt", "le", "gt", "ge") or not isinstance(test.value, bool | None))
WORDS = st.sampled_from(["python", "python sql", "SQL", "rust", "rust_never", "one sql"]).map(
    lambda words: Test(field="bio", op="text", value=words)
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    TESTS | WORDS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda each: AllOf(all=tuple(each))),
        st.lists(inner, max_size=3).map(lambda each: AnyOf(any=tuple(each))),
        inner.map(lambda each: Not(no=each)),
    ),
    max_leaves=4,
)
ORDERS = st.lists(st.sampled_from(FIELDS), unique=True, max_size=2).flatmap(
    lambda names: st.tuples(*[st.sampled_from([name, f"-{name}"]) for name in names])
)


class Abandon(Exception):
    """Raised by a job that must leave nothing behind."""


class IndexMachine(RuleBasedStateMachine):
    """The model: each agent's keys, with the position at which they began and what they hold."""

    agents = ("ada",)

    def make(self) -> SqlCorpus:
        """The corpus in `home`."""
        return SqliteCorpus(self.home / "log.db")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.model: dict[tuple[str, str], tuple[int, Any]] = {}
        self.away: dict[int, tuple[int, bytes]] = {}
        self.corpus = self.make()
        self.open()

    def open(self) -> None:
        """Opens the logs."""
        self.logs = {agent: log_of(self.corpus, self.home, agent) for agent in self.agents}

    def teardown(self) -> None:
        """Closes and forgets it."""
        assert [str(each) for each in verify_corpus(self.corpus).findings] == []
        self.corpus.close()
        shutil.rmtree(self.home)

    def load(self, stored: Stored) -> Any:
        """What a node does: fetches what was evicted, reads blobs, and refuses what is sealed."""
        if stored.body is None and stored.why == wire.EVICTED:
            packing, body = self.away[stored.pos]
            return codec.deserialise(stored.record.fmt, codec.unpack(packing, body, stored.record.payload_len))
        return read_log(stored, next(iter(self.logs.values())).blobs)

    # -- what is written ----------------------------------------------------------------------------------------

    @initialize(
        each=st.lists(st.tuples(st.integers(0, 1), KEYS, OBJECTS), max_size=8),
        fields=st.sampled_from([(), FIELDS[:2], FIELDS]),
        when=st.sampled_from(["before", "behind", "never"]),
    )
    def begin(self, each: list[tuple[int, str, Any]], fields: list[str], when: str) -> None:
        """Some values, and a collection that is declared before or behind them, or later."""
        if when == "before":
            index.declare(self.corpus, PEOPLE, fields, words=["bio"])
        for agent, key, held in each:
            self.put(agent, key, held, 3)
        if when == "behind":
            index.declare(self.corpus, PEOPLE, fields, words=["bio"])

    @rule(agent=st.integers(0, 1), key=KEYS, value_=OBJECTS, kind=st.integers(0, 20))
    def put(self, agent: int, key: str, value_: Any, kind: int) -> None:
        """A key holds an object, most often; or something else, or a large one, or what is sealed."""
        who = self.agents[agent % len(self.agents)]
        held: Any = value_
        if kind == 0:
            held = ["no object"]
        elif kind == 1:
            held = value_ | {"large": "z" * INLINE_BYTES_MAX}
        draft = value(PEOPLE, key, held)
        if kind == 2:
            held, draft = None, Draft("value", PEOPLE, key, codec.FMT_BYTES, b"noise", VALUE | SEALED, kid=bytes(16))
        pos = self.logs[who].append([draft])[0].pos
        begun = self.model.get((who, key), (pos, None))[0]
        self.model[who, key] = (begun, held)

    @rule(agent=st.integers(0, 1), key=KEYS)
    def delete(self, agent: int, key: str) -> None:
        """A key holds nothing any more."""
        who = self.agents[agent % len(self.agents)]
        self.logs[who].append([remove(PEOPLE, key)])
        self.model.pop((who, key), None)

    @rule(agent=st.integers(0, 1), prefix=PREFIXES)
    def clear(self, agent: int, prefix: str) -> None:
        """Keys that begin so hold nothing any more."""
        who = self.agents[agent % len(self.agents)]
        self.logs[who].append([remove(PEOPLE, prefix, prefix=True)])
        self.model = {at: held for at, held in self.model.items() if at[0] != who or not at[1].startswith(prefix)}

    @rule(key=KEYS, held=OBJECTS)
    def abandon(self, key: str, held: Any) -> None:
        """What was rolled back is nowhere."""
        write = self.logs["ada"].job([value(PEOPLE, key, held)])

        def job(tx: Any) -> None:
            write(tx)
            raise Abandon

        with pytest.raises(Abandon):
            self.corpus.write(job)

    @rule(agent=st.integers(0, 1), key=KEYS, back=st.integers(0, 2), known=st.booleans())
    def redact(self, agent: int, key: str, back: int, known: bool) -> None:
        """A version that was erased is not found by what it held."""
        who = self.agents[agent % len(self.agents)]
        if known:
            self.find_one(AllOf(), (), 4, 9)
        versions = [each for each in self.logs[who].versions(PEOPLE, key) if not each.gone][back : back + 1]
        for stored in versions:
            current = self.logs[who].newest(PEOPLE, key)
            erase(self.logs[who], [], [mark_of(stored.record)])
            if current is not None and current.pos == stored.pos:
                self.model[who, key] = (self.model[who, key][0], None)
        self.find_one(AllOf(), (), 4, 9)

    @rule(agent=st.integers(0, 1), key=KEYS)
    def evict(self, agent: int, key: str) -> None:
        """What was evicted is found all the same."""
        who = self.agents[agent % len(self.agents)]
        stored = self.logs[who].newest(PEOPLE, key)
        if stored is not None and stored.body is not None and not stored.is_blob:
            self.away[stored.pos] = (stored.codec, stored.body)
            self.corpus.write(lambda tx: tx.drop_body(stored.pos, wire.EVICTED))

    @rule(number=st.integers(1, 30))
    def write_elsewhere(self, number: int) -> None:
        """Other collections do not matter."""
        self.logs["ada"].append([value("other", f"k{n}", {"years": n}) for n in range(number)])

    # -- what becomes of the index ------------------------------------------------------------------------------

    @rule(fields=st.lists(st.sampled_from(FIELDS), max_size=3), words=st.booleans())
    def declare(self, fields: list[str], words: bool) -> None:
        """Fields may be added at any time."""
        index.declare(self.corpus, PEOPLE, fields, words=["bio"] if words else [])

    @rule(times=st.integers(1, 3), lot=st.integers(1, 4))
    def fill(self, times: int, lot: int) -> None:
        """The filler may be stopped anywhere."""
        for _ in range(times):
            index.fill(self.corpus, lot=lot)

    @rule()
    def lose_mark(self) -> None:
        """Without its watermark the index is worth nothing, and is made anew."""
        self.corpus.write(lambda tx: tx.execute("DELETE FROM meta WHERE k=?", (MARK,)))

    @rule()
    def reset(self) -> None:
        """It may be emptied at any time."""
        self.corpus.write(index.reset)

    @rule()
    def reopen(self) -> None:
        """What is committed is enough to go on from."""
        self.corpus.close()
        self.corpus = self.make()
        self.open()

    # -- what is found ------------------------------------------------------------------------------------------

    def wanted(self, condition: Condition, agents: tuple[str, ...]) -> list[tuple[int, str, Any]]:
        """What the model says: when a key began (undeclared: was last written), the key, and what it holds."""
        declared = bool(self.corpus.query("SELECT 1 FROM field"))
        return sorted(
            (begun if declared else self.logs[who].newest(PEOPLE, key).pos, key, held)
            for (who, key), (begun, held) in self.model.items()
            if (not agents or who in agents) and isinstance(held, dict) and query.matches(condition, held)
        )

    @rule(asked=st.lists(st.tuples(CONDITIONS, ORDERS, st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=6))
    def find(self, asked: list[tuple[Condition, tuple[str, ...], int, int]]) -> None:
        """Pages hold what the model says, in its order, each once."""
        for each in [(AllOf(), (), 3, 9), *asked]:
            self.find_one(*each)

    @rule(test=TESTS, order=ORDERS)
    def find_by(self, test: Condition, order: tuple[str, ...]) -> None:
        """The same of one test and what does not pass it."""
        self.find_one(test, order, 2, 9)
        self.find_one(Not(no=test), order, 2, 9)

    def find_one(self, condition: Condition, order: tuple[str, ...], limit: int, agent: int) -> None:
        """Pages hold what the model says, in its order, each once."""
        agents = (("ada",), ("bob", "nobody"), ("nobody",))[agent] if agent < 3 else ()
        asked = index.Query(collection=PEOPLE, agents=agents, condition=condition, order=order, limit=limit)
        known = question.checked(asked)
        wanted = self.wanted(condition, agents)
        wanted.sort(key=lambda each: question.Place(known, question.keys_in(known, each[2]), each[0]))
        found: list[str] = []
        after = None
        while True:
            page = index.find(self.corpus, index_with(asked, after), self.load)
            found += [stored.record.key for stored in page.found]
            assert len(page.found) <= limit
            after = page.cursor
            if after is None:
                break
            assert len(page.found) == limit
        assert found == [key for _, key, _ in wanted]
        assert index.count(self.corpus, asked, self.load) == len(wanted)

    @rule(condition=CONDITIONS, group=st.none() | st.sampled_from(FIELDS), field=st.sampled_from(FIELDS))
    def add_up(self, condition: Condition, group: str | None, field: str) -> None:
        """Sums are those of the model."""
        of = [("count", ""), *((func, field) for func in question.FUNCS)]
        asked = index.Query(collection=PEOPLE, condition=condition)
        found = index.aggregate(self.corpus, asked, self.load, group=group, of=of)
        groups: dict[Any, list[Any]] = {} if group else {None: []}
        for _, _, held in self.wanted(condition, ()):
            for key in question.keys_of(held, group) if group else [b""]:
                groups.setdefault(question.value_of(key) if group else None, []).append(held)
        assert [each.by for each in found] == sorted(
            groups, key=lambda by: query.sort_key(by) if by is not None else b""
        ) or any(isinstance(by, bool | float) for by in groups)
        for each in found:
            held = groups[each.by]
            keys = [key for one in held for key in question.keys_of(one, field) if key >= b"\x10"]
            numbers = [question.value_of(key) for key in keys if key[:1] == b"\x20"]
            assert each.results[:2] == (len(held), len(keys))
            assert each.results[2] == (pytest.approx(sum(numbers)) if numbers else None)
            assert each.results[3] == (pytest.approx(sum(numbers) / len(numbers)) if numbers else None)
            assert each.results[4] == (question.value_of(min(keys)) if keys else None)
            assert each.results[5] == (question.value_of(max(keys)) if keys else None)
            assert each.results[6] == len(set(keys))


def index_with(asked: index.Query, after: str | None) -> index.Query:
    import msgspec

    return msgspec.structs.replace(asked, after=after)


class HubMachine(IndexMachine):
    """The same of a hub's file with two agents."""

    agents = ("ada", "bob")

    def make(self) -> SqlCorpus:
        """The corpus in `home`."""
        return SqliteCorpus(self.home / "hub.db", hub=True)


@pytest.fixture(params=["as it is", "a few"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size so small that each way is taken."""
    if request.param == "a few":
        monkeypatch.setattr(ways, "FEW", 2)
        monkeypatch.setattr(ways, "CHUNK", 2)
        monkeypatch.setattr(ways, "CHUNK_MAX", 3)
        monkeypatch.setattr(ways, "STEP", 2)
        monkeypatch.setattr(looking, "_STEP", 2)


class DatabaseMachine(HubMachine):
    """The same of a database."""

    def make(self) -> SqlCorpus:
        """The corpus that the file in `home` names."""
        where = self.home / "database"
        if not where.exists():
            where.write_text(shared_postgres().corpus())
        return PostgresCorpus(where.read_text())


EVERYWHERE = [(IndexMachine, 12), (HubMachine, 12), (DatabaseMachine, 3)]
LONG = [pytest.param(machine, 20 * many, marks=pytest.mark.long) for machine, many in EVERYWHERE]


@pytest.mark.parametrize(("machine", "many"), [*EVERYWHERE, *LONG])
def test_the_index_says_what_a_dict_says(machine: type[IndexMachine], many: int, small: None) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=many,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        ),
    )


def test_an_index_made_anew_from_values_that_are_away_finds_each_once(tmp_path: Path) -> None:
    corpus = SqliteCorpus(tmp_path / "log.db")
    log, held = log_of(corpus, tmp_path), {"skills": ["python", "sql", "go"]}
    index.declare(corpus, PEOPLE, ["skills"])
    numbers = [log.append([value(PEOPLE, key, held)])[0].pos for key in ("ada", "bob")]
    asked = index.Query(collection=PEOPLE, order=("-skills",), limit=5)

    def found() -> list[str]:
        return [stored.record.key for stored in index.find(corpus, asked, lambda _: held).found]

    assert found() == ["bob", "ada"]
    for number in numbers:
        corpus.write(lambda tx, number=number: tx.drop_body(number, wire.EVICTED))
    corpus.write(lambda tx: tx.execute("DELETE FROM meta WHERE k=?", (MARK,)))
    assert found() == ["bob", "ada"]
    corpus.close()
