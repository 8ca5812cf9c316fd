"""Searching a hub, and filling its indexes of vectors, over HTTP: what is found, by whom it is filled, and who may."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import wire
from holdfast.corpus import search
from holdfast.hub.home import Home
from tests.embedders import DIMS, embed
from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.hub.roles import House

MEMORIES = {
    "tea": "She likes black tea",
    "car": "He drives a red car to the office",
    "cup": "A cup of oolong each morning",
    "roses": "The roses want water",
}
MODEL = {"model": "meanings", "fields": ["text"]}


@pytest.fixture
def knowing(room: Room) -> Room:
    """A hub that knows some things of two agents, its words indexed."""
    ada, bob = Pen("ada"), Pen("bob")
    for number, (key, text) in enumerate(MEMORIES.items()):
        ada.put(key, {"text": text, "n": number, "tags": [key, "x"]}, collection="memory")
    bob.put("plan", {"text": "which tea to buy"}, collection="memory")
    bob.put("plan", {"text": "tea for the whole week"}, collection="notes")
    room.append(ada.segment(), bob.segment())
    return room


def ask(room: Room, status: int = 200, **question: Any) -> Any:
    """What a hub answers to a question."""
    answer = room.client.post("/v1/search", json=question)
    assert answer.status_code == status, answer.text
    return answer.json()


def keys(found: Any) -> list[tuple[str, str]]:
    """Whose keys were found."""
    return [(each["agent"], each["key"]) for each in found["hits"]]


def packed(text: str) -> str:
    """A question as a vector, in base64."""
    (vector,) = embed([text])
    return base64.b64encode(struct.pack(f"<{DIMS}f", *vector)).decode()


def fill(room: Room, name: str, identity: str, filler: str = "one") -> int:
    """Fills an index as a filler elsewhere would, until nothing waits; how many texts that took."""
    many = 0
    while True:
        lot = room.client.post(f"/v1/indexing/pending/{name}", json={"identity": identity, "filler": filler}).json()
        if not lot["records"] and not lot["failed"]:
            return many
        told = {"identity": identity, "filler": filler, "after": lot["after"], "upto": lot["upto"]}
        told["records"] = [{"pos": each["pos"], "vectors": embed(each["pieces"])} for each in lot["records"]]
        many += sum(len(each["pieces"]) for each in lot["records"])
        answer = room.client.post(f"/v1/indexing/vectors/{name}", json=told)
        assert answer.json() == {"kept": True}, answer.text


def test_by_words_what_holds_all_comes_first_and_then_what_holds_most(knowing: Room) -> None:
    found = ask(knowing, q="which tea does she like")
    assert found["mode"] == "text"
    assert ("ada", "tea") in keys(found), "nothing holds every word"
    assert all(0 < each["score"] <= 0.25 for each in found["hits"])
    whole = ask(knowing, q="likes tea")
    assert keys(whole)[0] == ("ada", "tea")
    assert whole["hits"][0]["score"] == 1.0
    assert keys(ask(knowing, q="likes tea", min_score=1.0)) == [("ada", "tea")]
    assert keys(ask(knowing, q="tea", collection="memory", agent="bob")) == [("bob", "plan")]
    assert keys(ask(knowing, q="tea", filter={"n": {"gte": 0}})) == [("ada", "tea")]
    either = {"OR": [{"tags": {"contains": "car"}}, {"n": {"in": [3]}}]}
    assert keys(ask(knowing, q="x", filter=either)) == [("ada", "roses"), ("ada", "car")]
    told = ask(knowing, q="tea", explain=True, limit=1)["hits"][0]
    assert told["parts"]["text"] == 1.0
    assert set(told) >= {"pos", "agent", "value", "score", "parts"}


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"q": "..."}, "nothing to search for"),
        ({"q": "tea", "filter": {"n": {"gtee": 1}}}, "gtee"),
        ({"q": "tea", "mode": "vector", "collection": "memory"}, "no index of vectors"),
        ({"q": "tea", "mode": "vector"}, "needs a collection"),
        ({"q": "tea", "mode": "fuzzy"}, "mode"),
        ({"q": "tea", "limit": 0}, "limit"),
        ({"q": "tea", "at": "yesterday"}, "not a time"),
        ({"q": "tea", "mode": "hybrid", "collection": "memory", "at": "2026-01-06T12:00:00Z"}, "newest values only"),
        ({"q": "tea", "vector": [1.0]}, "belong together"),
        ({"q": "tea", "identity": "ab", "vector": "!!"}, "base64"),
        ({"q": "tea", "what": 1}, "what"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_and_says_why(knowing: Room, question: Any, says: str) -> None:
    assert says in ask(knowing, 400, **question)["error"]["message"]


def test_the_past_is_searched_by_a_cursor_and_by_a_time(room: Room) -> None:
    pen = Pen("ada")
    pen.put("drink", {"text": "coffee first"}, collection="memory")
    room.append(pen.segment(1))
    then = room.get("/v1/feed")["cursor"]
    pen.put("drink", {"text": "tea later"}, collection="memory")
    room.append(pen.segment(2))
    first, second = (each["time"] for each in room.records())
    assert keys(ask(room, q="coffee")) == []
    for at in (then, first):
        (hit,) = ask(room, q="coffee", at=at)["hits"]
        assert (hit["key"], hit["version"]) == ("drink", 1)
        assert keys(ask(room, q="tea", at=at)) == []
    assert keys(ask(room, q="tea", at=second)) == [("ada", "drink")]


def test_an_index_is_declared_filled_and_searched(knowing: Room, home: Home) -> None:
    made = knowing.client.put("/v1/indexes/memory", json=MODEL).json()
    assert (made["name"], made["vectors"], made["pending"], made["complete"]) == ("memory", 0, 5, False)
    assert knowing.client.put("/v1/indexes/memory", json=MODEL).json()["identity"] == made["identity"]
    identity = made["identity"]
    assert fill(knowing, "memory", identity) == 5
    stands = knowing.get("/v1/indexes/memory")
    assert (stands["vectors"], stands["pending"], stands["complete"], stands["dims"]) == (5, 0, True, DIMS)
    assert knowing.get("/v1/indexes")["indexes"] == [stands]
    page = knowing.client.get("/data", params={"collection": "memory"}, headers={"Accept": "text/html"}).text
    assert "Found by meaning, too: 5 vectors by <bdi>meanings</bdi>." in page
    # Nobody said beverage: only its meaning is near to something.
    asked = {"q": "beverage", "collection": "memory"}
    assert ask(knowing, **asked) | {"identity": None} == ask(knowing, q="beverage") | {"identity": None}
    near = ask(knowing, **asked, mode="vector", vector=packed("beverage"), identity=identity)
    assert keys(near)[0] in {("ada", "tea"), ("ada", "cup")}
    assert near["hits"][0]["score"] > near["hits"][-1]["score"]
    assert (near["mode"], near["identity"], near["pending"]) == ("vector", identity, 0)
    both = ask(knowing, **asked, vector=packed("beverage"), identity=identity)
    assert both["mode"] == "hybrid"
    assert {keys(both)[0], keys(both)[1]} <= {("ada", "tea"), ("ada", "cup"), ("bob", "plan")}
    # A vector of another index is compared with none of this one's: auto goes by words, and says so.
    assert ask(knowing, **asked, vector=packed("beverage"), identity="ab")["mode"] == "text"
    assert (
        "nobody here"
        in ask(knowing, 400, **asked, mode="vector", vector=packed("x"), identity="ab")["error"]["message"]
    )
    # What is replaced is found no more, by whatever way, also before it is embedded anew.
    assert (
        knowing.client.put("/v1/collections/memory/items/tea?agent=ada", json={"value": {"text": "x"}}).status_code
        == 200
    )
    dropped = knowing.client.delete("/v1/indexes/memory").json()
    assert dropped == {"dropped": True}
    assert knowing.client.delete("/v1/indexes/memory").json() == {"dropped": False}
    assert knowing.client.get("/v1/indexes/memory").status_code == 404
    gone = {"identity": identity, "filler": "one"}
    assert knowing.client.post("/v1/indexing/pending/memory", json=gone).status_code == 404
    assert knowing.client.post("/v1/indexing/rebuild/memory").status_code == 404


def test_two_fillers_share_the_work_and_neither_harms_the_other(knowing: Room) -> None:
    identity = knowing.client.put("/v1/indexes/memory", json=MODEL).json()["identity"]

    def pending(filler: str, **more: Any) -> Any:
        return knowing.client.post(
            "/v1/indexing/pending/memory", json={"identity": identity, "filler": filler, **more}
        ).json()

    def told(lot: Any, filler: str) -> Any:
        records = [{"pos": each["pos"], "vectors": embed(each["pieces"])} for each in lot["records"]]
        body = {"identity": identity, "filler": filler, "after": lot["after"], "upto": lot["upto"], "records": records}
        answer = knowing.client.post("/v1/indexing/vectors/memory", json=body)
        return answer.json() if answer.status_code == 200 else answer.json()["error"]["message"]

    first = pending("one")
    assert len(first["records"]) == 5
    away = pending("two")
    assert (away["held"], away["records"]) == (False, [])
    assert 0 < away["wait_s"] <= 60
    assert knowing.get("/v1/indexes/memory")["filler"] == "one"
    again = pending("one", hold_s=0.001)  # who asks again has lost the answer: he is given the same
    assert again["records"] == first["records"]
    # His time is over: the other is given it too, and whoever is first is kept.
    while not (second := pending("two"))["held"]:
        pass
    assert second["records"] == first["records"]
    assert told(second, "two") == {"kept": True}
    assert told(first, "one") == {"kept": False}
    stands = knowing.get("/v1/indexes/memory")
    assert (stands["vectors"], stands["complete"]) == (5, True)
    # What a filler was not given it cannot put in: another collection's record, or one that is not there.
    (note,) = [each["pos"] for each in knowing.records() if each["collection"] == "notes"]
    for pos in (note, 1_000):
        forged = {"after": -1, "upto": -1, "records": [{"pos": pos, "pieces": ["tea"]}]}
        assert "were not given" in told(forged, "two")
    assert "nothing at" in told({"after": 0, "upto": 1_000, "records": []}, "two")


def test_what_the_function_fails_on_is_told_and_holds_nothing_up(knowing: Room) -> None:
    identity = knowing.client.put("/v1/indexes/memory", json=MODEL).json()["identity"]
    lot = knowing.client.post("/v1/indexing/pending/memory", json={"identity": identity, "filler": "one"}).json()
    bad, *good = lot["records"]
    body = {"identity": identity, "filler": "one", "after": lot["after"], "upto": lot["upto"]}
    body["records"] = [{"pos": each["pos"], "vectors": embed(each["pieces"])} for each in good]
    body["failed"] = [{"pos": bad["pos"], "error": "ValueError: no such token"}]
    assert knowing.client.post("/v1/indexing/vectors/memory", json=body).json() == {"kept": True}
    stands = knowing.get("/v1/indexes/memory")
    assert (stands["failed"], stands["vectors"], stands["last_error"]) == (1, 4, "ValueError: no such token")
    (warning,) = [each for each in knowing.get("/readyz")["warnings"] if "embedded" in each]
    assert "1 records could not be embedded" in warning
    assert "memory" not in warning, "probes are open to all"
    scraped = knowing.client.get("/metrics").text
    assert 'holdfast_index_failed_records{index="memory"} 1.0' in scraped
    assert 'holdfast_index_vectors{index="memory"} 4.0' in scraped
    # The function as a whole: the hub gives nobody any text for a while.
    down = {"identity": identity, "filler": "one", "error": "ConnectionError: away"}
    assert knowing.client.post("/v1/indexing/vectors/memory", json=down).json() == {"kept": True}
    stands = knowing.get("/v1/indexes/memory")
    assert stands["last_error"] == "ConnectionError: away"
    assert stands["next_try"] is not None
    # Made anew, nothing of what was is left.
    anew = knowing.client.post("/v1/indexing/rebuild/memory").json()
    assert (anew["vectors"], anew["failed"], anew["last_error"], anew["identity"]) == (0, 0, "", identity)
    assert fill(knowing, "memory", identity) == 5
    assert knowing.get("/v1/indexes/memory")["complete"]


def test_vectors_that_cannot_be_those_of_an_index_are_refused(knowing: Room) -> None:
    made = knowing.client.put("/v1/indexes/memory", json={**MODEL, "dims": 3}).json()
    identity = made["identity"]
    lot = knowing.client.post("/v1/indexing/pending/memory", json={"identity": identity, "filler": "one"}).json()
    pos = lot["records"][0]["pos"]
    body = {"identity": identity, "filler": "one", "after": lot["after"], "upto": lot["upto"]}
    for vector, says in (
        ([1.0, 2.0], "2 numbers for an index of 3"),
        ([], "between 1 and"),
        ("AAAA", "base64 of float32s"),
        (base64.b64encode(struct.pack("<3f", 1, float("nan"), 0)).decode(), "not finite"),
    ):
        answer = knowing.client.post(
            "/v1/indexing/vectors/memory", json={**body, "records": [{"pos": pos, "vectors": [vector]}]}
        )
        assert (answer.status_code, says in answer.text) == (400, True), answer.text
    assert knowing.get("/v1/indexes/memory")["vectors"] == 0
    for wrong in ({"model": " "}, {"model": "m", "fields": ["a..b"]}, {"model": "m", "chunk": 3}):
        assert knowing.client.put("/v1/indexes/memory", json=wrong).status_code == 400, wrong


def test_an_index_of_a_collection_with_a_slash_in_its_name(room: Room) -> None:
    pen = Pen("ada")
    pen.put("k", {"text": "black tea"}, collection="table/public")
    room.append(pen.segment())
    identity = room.client.put("/v1/indexes/table/public", json=MODEL).json()["identity"]
    assert fill(room, "table%2Fpublic", identity) == 1
    found = ask(room, q="brew", collection="table/public", vector=packed("brew"), identity=identity)
    assert (found["mode"], keys(found)) == ("hybrid", [("ada", "k")])


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["directory"], indirect=True)  # where its tokens lie makes no difference to them
def test_a_token_finds_in_no_way_what_it_may_not_read(house: House) -> None:
    pen = Pen("shared")
    for collection in ("public/news", "secret"):
        pen.put("k", {"text": f"tea in {collection}"}, collection=collection)
    assert house.append("admin", pen.segment()).verdicts[0].state == "ack"
    identities = {}
    for name in ("public/news", "secret"):
        made = house.ask("admin", "PUT", f"/v1/indexes/{name}", MODEL).json()
        identities[name] = made["identity"]
        lot = house.ask("admin", "POST", f"/v1/indexing/pending/{name}", {"identity": made["identity"], "filler": "f"})
        records = [{"pos": each["pos"], "vectors": embed(each["pieces"])} for each in lot.json()["records"]]
        body = {"identity": made["identity"], "filler": "f", "records": records}
        body |= {"after": lot.json()["after"], "upto": lot.json()["upto"]}
        assert house.ask("admin", "POST", f"/v1/indexing/vectors/{name}", body).json() == {"kept": True}
    for mode in ("auto", "text", "vector", "hybrid"):
        question: dict[str, Any] = {"q": "tea", "mode": mode}
        if mode in ("auto", "text"):
            found = house.ask("public", "POST", "/v1/search", question).json()
            assert [each["collection"] for each in found["hits"]] == ["public/news"], mode
        question |= {"vector": packed("tea"), "identity": identities["public/news"]}
        found = house.ask("public", "POST", "/v1/search", {**question, "collection": "public/news"}).json()
        assert [each["collection"] for each in found["hits"]] == ["public/news"], mode
        for name in ("secret", "nothing"):
            refused = house.ask("public", "POST", "/v1/search", {**question, "collection": name})
            assert refused.status_code == 403, mode
    listed = house.ask("public", "GET", "/v1/indexes").json()["indexes"]
    assert [each["name"] for each in listed] == ["public/news"]
    for name in ("secret", "nothing"):
        asked = {"identity": identities["secret"], "filler": "f"}
        for method, path, body in (
            ("GET", f"/v1/indexes/{name}", None),
            ("PUT", f"/v1/indexes/{name}", MODEL),
            ("DELETE", f"/v1/indexes/{name}", None),
            ("POST", f"/v1/indexing/pending/{name}", asked),
            ("POST", f"/v1/indexing/vectors/{name}", asked),
            ("POST", f"/v1/indexing/rebuild/{name}", None),
        ):
            for role in ("public", "narrow"):
                assert house.ask(role, method, path, body).status_code == 403, (role, method, path)
    # Who may write and not read is given no texts.
    blind = house.ask("blind", "POST", "/v1/indexing/pending/secret", {"identity": "a", "filler": "f"})
    assert (blind.status_code, "records:read" in blind.text) == (403, True)
    assert wire.HUB_HEADER in blind.headers


def test_a_hub_that_nobody_asked_for_vectors_has_loaded_nothing_of_them(tmp_path: Path) -> None:
    script = (
        "import sys; from starlette.testclient import TestClient; from holdfast.hub.app import create_app\n"
        "with TestClient(create_app(sys.argv[1], ballast_bytes=0, floor_bytes=0)) as client:\n"
        "    for path in ('/v1/search?q=x', '/readyz', '/metrics', '/v1/indexes'): client.get(path)\n"
        "print(*sorted(n for n in sys.modules if n == 'numpy' or n.startswith('holdfast.corpus.search.')))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "hub")], capture_output=True, text=True)
    assert done.stdout.split() == ["holdfast.corpus.search.words"], done.stderr


@pytest.mark.parametrize("home", ["database"], indirect=True)
def test_at_the_end_of_a_flow_no_words_are_left_for_every_search_to_read(room: Room, pen: Pen) -> None:
    room.core._stop_trail.set()
    room.core.writer.committed.set()
    room.core._trailer.join()
    unsorted = (
        "SELECT gin_clean_pending_list('fts_words')"  # the pages that it found; a reading of its own sorts them in
    )
    for begin in (0, 1_000):
        for n in range(begin, begin + 300):
            pen.put(f"k{n}", f"words of record {n}")
        room.append(pen.segment())
        if begin:
            search.fill(room.core.corpus)
            assert room.core.corpus.one(unsorted)[0] > 0, "it is measured"
        while room.core._index():
            pass
        assert room.core.corpus.one(unsorted)[0] == 0
