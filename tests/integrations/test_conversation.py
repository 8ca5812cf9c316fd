"""What the adapters share, against a plain list: every step of a conversation, by several hands, at every place."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from holdfast.errors import Conflict, HubUnavailable, IntegrityError, NotFound, UsageError
from holdfast.integrations import conversation as module
from holdfast.integrations import entries as pieces
from holdfast.integrations.bodies import PIECE_BYTES, Bodies
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Head, path_of
from holdfast.integrations.place import Place, settled
from tests.integrations.places import LIMITS, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

ENTRIES = st.lists(
    st.one_of(st.integers(-5, 5), st.text(max_size=3), st.fixed_dictionaries({"x": st.integers(0, 3)})), max_size=4
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ENTRIES),
        st.tuples(st.just("large"), st.integers(1, 3)),
        st.tuples(st.just("marked"), st.lists(st.sampled_from("abcd"), min_size=1, max_size=4)),
        st.tuples(st.just("pop"), st.integers(1, 4)),
        st.tuples(st.just("replace"), ENTRIES),
        st.tuples(st.just("delete"), st.none()),
        st.tuples(st.just("lost"), st.none()),
    ),
    max_size=14,
)


def conversations(kept: dict[str, Any]) -> Conversations:
    more = {name: each for name, each in kept.items() if name not in ("where", "collection")}
    return Conversations(Place(kept["where"], **more), kept["collection"])


def leave_behind(chats: Conversations, name: tuple[str, ...]) -> None:
    """A part that somebody put before he was killed, where the next one would go."""
    found = chats._head(name, None, None)
    if found is not None:
        of = pieces.life_of(path_of(name), found[0].life)
        part = pieces.Part(of=of, number=found[0].next, entries=["never said"], ids=["d"])
        if chats.place.at_once(chats._heads) is None:  # in one commit there is no such moment
            try:
                chats._parts.put(f"{of}/{part.number:08}", part, expect=0)
            except Conflict:
                return


class Model:
    """The same, in a list."""

    def __init__(self) -> None:
        self.entries: list[Any] | None = None
        self.known: dict[int, str] = {}

    def append(self, entries: list[Any], ids: list[str] | None = None) -> None:
        self.entries = [] if self.entries is None else self.entries
        for number, entry in enumerate(entries):
            if ids is not None:
                if ids[number] in self.known.values():
                    continue
                self.known[len(self.entries)] = ids[number]
            self.entries.append(entry)

    def pop(self) -> Any:
        if not self.entries:
            return None
        self.known.pop(len(self.entries) - 1, None)
        return self.entries.pop()


def step(chats: Conversations, name: tuple[str, ...], model: Model, what: str, given: Any) -> None:
    if what == "append":
        model.append(given)
        chats.append(name, given)
    elif what == "large":
        entries = [f"{number}" * 40_000 for number in range(given * 5)]
        model.append(entries)
        chats.append(name, entries)
    elif what == "marked":
        model.append([f"said {each}" for each in given], given)
        chats.append(name, [f"said {each}" for each in given], ids=given)
    elif what == "pop":
        for _ in range(given):
            assert chats.pop(name) == model.pop()
    elif what == "replace":
        model.entries, model.known = None, {}
        model.append(given)
        chats.replace(name, given)
    elif what == "delete":
        assert chats.delete(name) == (model.entries is not None)
        model.entries, model.known = None, {}
    else:
        leave_behind(chats, name)


def play(chats: Conversations, steps: list[tuple[str, Any]]) -> None:
    name, model = ("project", fresh()), Model()
    past: list[tuple[int, list[Any]]] = []
    for what, more in steps:
        step(chats, name, model, what, more)
        found = chats.get(name)
        assert (found is None) == (model.entries is None)
        assert chats.load(name) == model.entries
        for limit in (0, 1, 3, 100):
            expected = model.entries and (model.entries[-limit:] if limit else [])
            assert (chats.load(name, limit=limit) or []) == (expected or [])
        if found is not None and model.entries is not None:
            assert found.count == len(model.entries)
            past.append((found.revision, list(model.entries)))
    for revision, entries in past:  # also of what was deleted since, and written anew
        assert chats.load(name, at=revision) == entries


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_conversation_is_a_list_whatever_is_done_to_it(steps: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        play(Conversations(Place(store), "chats"), steps)


FIXED: list[tuple[str, Any]] = [
    ("append", [1, {"x": 2}]),
    ("marked", ["a", "b"]),
    ("lost", None),
    ("marked", ["b", "d", "c"]),
    ("pop", 2),
    ("append", ["after"]),
    ("large", 3),
    ("pop", 4),
    ("lost", None),
    ("append", [3]),
    ("replace", ["short"]),
    ("marked", ["a"]),
    ("delete", None),
    ("append", ["again"]),
]


def test_it_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    play(conversations(kept), FIXED)


def test_a_head_that_grew_long_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPANS_MAX", 3)
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
        chats = Conversations(Place(store), "chats")
        for number in range(8):
            chats.append(("c",), [number, "taken back"], ids=[f"id-{number}", None])
            chats.pop(("c",))
        chats.append(("c",), ["known"], ids=["id-3"])
        head = chats._heads.get("c")
        assert isinstance(head, Head)
        assert len(head.spans) <= 4
        assert chats.load(("c",)) == list(range(8))


def test_names_lie_below_names_and_any_text_is_one(kept: dict[str, Any]) -> None:
    chats = conversations(kept)
    odd = ["", "a/b", "a", "%!", "%-", "ü\n", "." * 3, "x" * 400]
    for name in odd:
        chats.append(("p", name), [name])
        chats.append(("p", name, "below"), ["under", name])
    assert [each.name for each in chats.list(("p",))] == [("p", name) for name in odd]
    assert len(chats.list(("p",), deep=True)) == 2 * len(odd)
    assert chats.list(()) == []
    assert chats.delete(("p", "a"), below=False)
    assert chats.load(("p", "a")) is None
    assert chats.load(("p", "a", "below")) == ["under", "a"]
    assert chats.delete(("p", "a/b"))
    assert chats.load(("p", "a/b", "below")) is None
    left = [name for name in odd if name not in ("a", "a/b")]
    assert [chats.load(("p", name)) for name in left] == [[name] for name in left]
    assert chats.delete(("p",))
    assert chats.list((), deep=True) == []
    assert not chats.delete(("p",))
    with pytest.raises(UsageError, match="sequence of texts"):
        chats.load("p")


def test_of_two_who_expect_one_revision_one_is_refused(kept: dict[str, Any]) -> None:
    chats = conversations(kept)
    first = chats.append(("c",), [1], expect=0, change=lambda state, new: {"seen": len(new)})
    assert first.state == {"seen": 1}
    with pytest.raises(Conflict):
        chats.append(("c",), [2], expect=0)
    second = chats.append(("c",), [2], expect=first.revision)
    for attempt in (chats.append, chats.replace):
        with pytest.raises(Conflict):
            attempt(("c",), [3], expect=first.revision)
    with pytest.raises(Conflict):
        chats.delete(("c",), expect=first.revision)
    assert chats.load(("c",)) == [1, 2]
    assert [each.count for each in chats.history(("c",))] == [2, 1]
    assert chats.delete(("c",), expect=second.revision)


def test_what_json_cannot_say_is_refused_and_changes_nothing(kept: dict[str, Any]) -> None:
    chats = conversations(kept)
    chats.append(("c",), [1])
    for bad in ([{1: 2}], [float("nan")], [object()], "text", {"a": 1}):
        with pytest.raises((UsageError, TypeError)):
            chats.append(("c",), bad)  # type: ignore[arg-type]
    assert chats.load(("c",)) == [1]


def test_many_hands_lose_nothing(kept: dict[str, Any]) -> None:
    chats = conversations(kept)
    hands, turns = 4, 6
    errors: list[BaseException] = []

    def write(hand: int) -> None:
        try:
            for turn in range(turns):
                count = (turn % 3) + 1
                entries = [[hand, turn, each] for each in range(count)]
                chats.append(("c",), entries, ids=[f"{entry}" for entry in entries])
                chats.append(("c",), entries, ids=[f"{entry}" for entry in entries])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(hand,)) for hand in range(hands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    said = chats.load(("c",)) or []
    for hand in range(hands):
        mine = [entry for entry in said if entry[0] == hand]
        assert mine == [[hand, turn, each] for turn in range(turns) for each in range((turn % 3) + 1)]
    assert len(said) == hands * sum((turn % 3) + 1 for turn in range(turns))


def test_a_part_that_is_gone_is_never_left_out_in_silence(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
        chats = Conversations(Place(store), "chats")
        chats.append(("c",), [1])
        head = chats._heads.get("c")
        head.spans = [(0, 1, -1)]
        head.next = 2
        chats._heads.put("c", head)
        with pytest.raises(IntegrityError, match="part 1 of the conversation c is gone"):
            chats.load(("c",))


def test_another_machine_goes_on_with_an_agents_own(machines: tuple[Store, Store]) -> None:
    laptop, desk = machines
    name = fresh()
    mine, other = Conversations(Place(laptop), name), Conversations(Place(desk), name)
    mine.append(("c",), [1, 2], ids=["a", None], change=lambda _, __: {"title": "t"})
    early = mine.append(("c",), [3])
    mine.append(("c",), [4])
    assert laptop.flush(30)
    assert other.load(("c",)) is None  # nobody else's unless it is asked for
    assert other.load(("c",), agent=laptop.agent) == [1, 2, 3, 4]
    made = other.fork(("c",), ("c",), at=early.revision, agent=laptop.agent)
    assert made.origin == {"name": ["c"], "revision": early.revision, "agent": laptop.agent}
    assert made.state == {"title": "t"}
    other.append(("c",), ["known", 5], ids=["a", "b"])
    assert other.load(("c",)) == [1, 2, 3, 5]
    assert mine.load(("c",)) == [1, 2, 3, 4]
    with pytest.raises(Conflict):
        other.fork(("c",), ("c",), agent=laptop.agent)
    with pytest.raises(NotFound):
        other.fork(("nobody's",), ("d",), agent=laptop.agent)


def test_without_its_hub_ones_own_goes_on_and_what_is_shared_says_so(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub="http://127.0.0.1:9", limits=LIMITS) as store:
        mine, shared = (Conversations(Place(store, shared=each), "chats") for each in (False, True))
        mine.append(("c",), [1])
        assert mine.load(("c",)) == [1]
        for attempt in (lambda: shared.append(("c",), [2]), lambda: shared.load(("c",)), lambda: shared.list()):
            with pytest.raises(HubUnavailable):
                attempt()
        assert mine.load(("c",)) == [1]


def test_bodies_are_whole_at_every_version(kept: dict[str, Any]) -> None:
    more = {name: each for name, each in kept.items() if name not in ("where", "collection")}
    bodies = Bodies(Place(kept["where"], **more), kept["collection"])
    large = bytes(range(256)) * (PIECE_BYTES // 256) + b"and more"
    first = bodies.put("a/b", b"", expect=0, about={"type": "text"})
    assert (first.state, bodies.get("a/b")) == ({"type": "text", "size": 0}, b"")
    bodies.put("a/b", large)
    bodies.put("a/b/c", b"below")
    bodies.put("ab", b"beside")
    assert bodies.get("a/b") == large
    assert bodies.get("a/b", at=first.revision) == b""
    assert list(bodies.list("a")) == ["a/b", "a/b/c", "ab"]
    assert list(bodies.list("a/")) == ["a/b", "a/b/c"]
    assert {key: found.state["size"] for key, found in bodies.list("a/b").items()} == {"a/b": len(large), "a/b/c": 5}
    assert bodies.delete("a/b")
    assert bodies.get("a/b") is None
    assert not bodies.delete("a/b")
    assert bodies.delete_below("a")
    assert list(bodies.list()) == ["ab"]


def test_who_is_cancelled_hears_so_when_it_is_over() -> None:
    begun, may_end = threading.Event(), threading.Event()
    done: list[int] = []

    def work() -> None:
        begun.set()
        may_end.wait(30)
        done.append(1)

    async def run() -> None:
        task = asyncio.ensure_future(settled(work))
        await asyncio.to_thread(begun.wait, 30)
        for _ in range(3):  # a second word changes nothing
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == [1]

    asyncio.run(run())


def test_a_place_says_what_it_lacks(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "ada", hub=[], limits=LIMITS) as store, pytest.raises(UsageError, match="ada's"):
        Place(store, agent="bob")
    with pytest.raises(UsageError, match="whose log"):
        Place(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="in whose name"):
        Place("http://127.0.0.1:9")
    with pytest.raises(UsageError, match="no place"):
        Place("", agent="ada")
    with Place(tmp_path / "node", agent="ada") as place:
        Conversations(place, "chats").append(("c",), ["kept"])
    with Place(str(tmp_path / "node"), agent="ada") as place:
        assert Conversations(place, "chats").load(("c",)) == ["kept"]
