"""What nobody who may not see it learns in any way, on no route."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast import wire
from holdfast.corpus import search
from tests.flow.hubs import until
from tests.hub.pens import Pen
from tests.hub.roles import CANARY, House, figure, furnish, of_ada


@pytest.fixture
def hiding(house: House) -> House:
    """The same hub with public records among many that say canary in every place that a record has."""
    secret = Pen(f"{CANARY}-agent")
    shared = Pen("shared")
    for number in range(30):
        secret.put(f"{CANARY}-{number}", f"{CANARY} word", collection=f"{CANARY}-collection")
        shared.put(f"{CANARY}-{number}", {"text": f"{CANARY} word"}, collection=f"table/{CANARY}")
        if number % 10 == 0:
            shared.put(f"open-{number}", "word", collection="public/news")
    secret.put(f"{CANARY}-collection", {"version": 1, "index": [CANARY]}, collection="schemas")
    shared.put("public/news", {"version": 1, "index": [CANARY]}, collection="schemas")  # a name that none can have
    shared.put("public", {"version": 1, "index": ["at"]}, collection="schemas")
    for pen in (secret, shared):
        assert house.append("admin", pen.segment()).verdicts[0].state == "ack"
    for sender in ("shared", f"{CANARY}-agent"):
        post = {"msg_id": f"{CANARY}-{sender}", "sender": sender, "content": f"{CANARY} word"}
        assert house.ask("admin", "POST", "/sync/message", post).status_code == 200
    for table in ("public-1", f"{CANARY}-rows"):
        row = {"agent_id": "shared", "table": table, "data": {"id": "r-1", "at": table}}
        assert house.ask("admin", "POST", "/relay/immediate", row).status_code == 200
    furnish(house, CANARY, f"{CANARY}-agent")
    house.ask("admin", "POST", "/v1/hello", wire.encode(secret.hello()), Content_Type=wire.MEDIA)
    house.ask("admin", "POST", "/v1/hello", wire.encode(shared.hello()), Content_Type=wire.MEDIA)
    house.pens |= {"secret": secret, "shared": shared}
    return house


def test_whoever_reads_public_collections_finds_all_of_them_and_nothing_else(hiding: House) -> None:
    def keys(path: str) -> list[str]:
        out: list[str] = []
        after = None
        while True:
            found = hiding.ask("public", "GET", f"{path}&limit=2" + (f"&after={after}" if after else "")).json()
            out += [each["key"] for each in found["records"]]
            after = found.get("next") or (None if found.get("caught_up", True) else found["cursor"])
            if not after:
                return out

    wanted = ["open-0", "open-10", "open-20", "r-1"]
    assert keys("/v1/feed?") == wanted
    assert keys("/v1/records?order=oldest") == wanted
    assert keys("/v1/records?") == wanted[::-1]
    assert keys("/v1/records?agent=shared&collection=public/news") == wanted[2::-1]
    found = hiding.ask("public", "GET", "/v1/search?q=word").json()
    assert [each["key"] for each in found["records"]] == wanted[2::-1]
    assert hiding.ask("public", "GET", "/v1/agents").json() == {
        "agents": [{"agent": "shared", "streams": []}],
        "next": None,
    }
    nodes = hiding.ask("public", "GET", "/v1/nodes").json()
    assert ([each["agents"] for each in nodes["nodes"]], nodes["total"]) == ([["shared"]], 1)
    assert hiding.ask("public", "POST", "/relay/query", {"table": "public-1"}).json()["count"] == 1
    assert hiding.ask("public", "GET", "/v1/latest?agent=shared&collection=public/news&key=open-0").status_code == 200
    assert hiding.ask("public", "GET", "/v1/history?agent=shared&collection=public/news&key=open-0").status_code == 200


def test_what_is_hidden_shows_nowhere_and_its_absence_looks_the_same(hiding: House) -> None:
    where = f"agent={CANARY}-agent&collection={CANARY}-collection"
    secret = hiding.pens["secret"]
    asked = [
        "/v1/feed?limit=500",
        f"/v1/feed?agent={CANARY}-agent",
        f"/v1/feed?prefix={CANARY}",
        "/v1/feed?format=json&wait=0&after=now",
        "/v1/records?limit=1000",
        f"/v1/records?agent={CANARY}-agent",
        f"/v1/records?key={CANARY}-1",
        f"/v1/search?q={CANARY}",
        "/v1/search?q=word&limit=1000",
        "/v1/agents",
        "/v1/nodes",
        "/v1/collections",
        "/health",
        "/readyz",
    ]
    for path in asked:
        answer = hiding.ask("public", "GET", path)
        assert answer.status_code == 200, (path, answer.text)
        assert CANARY not in answer.text.replace(f'"message":"{CANARY}', ""), path
    # What names a hidden collection is denied whether anything lies there or not.
    for path in (
        f"/v1/latest?{where}&key={CANARY}-1",
        f"/v1/history?{where}&key={CANARY}-1",
        f"/v1/keys?{where}",
        f"/v1/records?collection={CANARY}-collection",
        f"/v1/search?q=word&collection={CANARY}-collection",
        f"/v1/feed?collection={CANARY}-collection",
        f"/v1/feed?collection=public/news&collection={CANARY}-collection",
        f"/v1/heads?nonce={'ab' * 16}",
        "/query/messages",
        "/v1/count",
        f"/v1/count?agent={CANARY}-agent",
        f"/query/messages?agent={CANARY}-agent",
        f"/v1/collections/{CANARY}-collection/schema",
        f"/v1/collections/{CANARY}-collection/items/{CANARY}-1?agent={CANARY}-agent",
    ):
        there = hiding.ask("public", "GET", path)
        nowhere = hiding.ask("public", "GET", path.replace(CANARY, "nothing"))
        assert (there.status_code, nowhere.status_code) == (403, 403), path
        assert there.text.replace(CANARY, "nothing") == nowhere.text, path
    for table in (CANARY, "nothing"):
        assert hiding.ask("public", "POST", "/relay/query", {"table": table}).status_code == 403
    for what in ("find", "count", "aggregate", "search"):
        there, nowhere = (
            hiding.ask(
                "public",
                "POST",
                f"/v1/collections/{name}-collection/{what}",
                {"words": "word"} if what == "search" else {},
            )
            for name in (CANARY, "nothing")
        )
        assert (there.status_code, nowhere.status_code) == (403, 403), what
        assert there.text.replace(CANARY, "nothing") == nowhere.text
    assert [each["name"] for each in hiding.ask("public", "GET", "/v1/collections").json()["collections"]] == ["public"]
    pull = f"/v1/pull?stream={secret.stream.hex()}&inc={secret.inc.hex()}"
    for role in ("public", "narrow"):
        there, nowhere = (hiding.ask(role, "GET", each) for each in (pull, pull.replace(secret.inc.hex(), "0" * 32)))
        assert (there.status_code, nowhere.status_code) == (404, 404)
        assert there.text.replace(secret.inc.hex(), "0" * 32) == nowhere.text
    assert hiding.ask("admin", "GET", pull).status_code == 200


def test_how_well_something_fits_tells_nothing_of_what_is_hidden(hiding: House) -> None:
    def scores(word: str) -> list[Any]:
        asked = {"q": f"word {word}", "explain": True}
        answer = hiding.ask("public", "POST", "/v1/search", asked)
        assert answer.status_code == 200, answer.text
        return [(each["key"], each["score"], each["parts"]) for each in answer.json()["hits"]]

    until(lambda: not search.pending(hiding.core.corpus), "every word is in the index")
    assert [key for key, *_ in scores("unheard")] == ["open-20", "open-10", "open-0"]
    assert scores(CANARY) == scores("unheard"), "a word that hidden records hold weighs what one weighs that none holds"


STORED: tuple[tuple[str, str, Any], ...] = (
    ("GET", "sessions/session_canary", None),
    ("GET", "sessions/session_canary?deleted=true", None),
    ("GET", "sessions/session_canary/export", None),
    ("PUT", "sessions/session_canary", {"status": "ended"}),
    ("POST", "sessions/session_canary/fork", {}),
    ("POST", "sessions/session_canary/restore", None),
    ("DELETE", "sessions/session_canary", None),
    ("GET", "history?session_id=session_canary", None),
    ("GET", "history/search?session_id=session_canary&q=canary", None),
    ("POST", "history", {"session_id": "session_canary", "role": "user", "content": "?"}),
    ("DELETE", "history?session_id=session_canary", None),
    ("GET", "state/session_canary", None),
    ("PUT", "state/session_canary", {"data": 1}),
    ("DELETE", "state/session_canary", None),
    ("GET", "artifacts?session_id=session_canary", None),
    ("GET", "artifacts/artifact_canary", None),
    ("GET", "artifacts/artifact_canary/content", None),
    ("POST", "artifacts", {"session_id": "session_canary", "name": "n", "type": "t"}),
    ("PUT", "artifacts/artifact_canary/content", b"x"),
    ("DELETE", "artifacts/artifact_canary", None),
    ("POST", "metrics", figure("session_canary")),
    ("POST", "metrics/batch", {"metrics": [figure("session_canary")]}),
)
"""Every way to ask about one session or what belongs to it."""


@pytest.mark.parametrize(("role", "deleting"), [("public", 403), ("keeper", 403), ("blind", 404)])
def test_a_file_that_may_not_be_seen_cannot_be_told_from_none(hiding: House, role: str, deleting: int) -> None:
    there = hiding.files[CANARY]
    nowhere = "file_" + "0" * 32
    for method, path, status in (("GET", "", 403), ("HEAD", "", 403), ("GET", "/meta", 403), ("DELETE", "", deleting)):
        found, none = (hiding.ask(role, method, f"/sync/files/{file}{path}") for file in (there, nowhere))
        assert (found.status_code, none.status_code) == (status, status), (method, path)
        assert found.text.replace(there, nowhere) == none.text
    assert hiding.ask(role, "GET", "/sync/files").status_code == 403
    assert hiding.ask("admin", "GET", f"/sync/files/{there}").content == CANARY.encode()


def test_sql_is_for_those_who_may_read_everything_and_ask_in_sql(hiding: House) -> None:
    asked = {"sql": "SELECT count(*) AS n FROM messages WHERE id LIKE 'canary%'"}
    for role, status in (("none", 401), ("owner", 403), ("public", 403), ("sql-narrow", 403), ("blind", 403)):
        refused = hiding.ask(role, "POST", "/relay/query", asked)
        assert (refused.status_code, CANARY in refused.text) == (status, False), role
    for role in ("sql", "admin"):
        found = hiding.ask(role, "POST", "/relay/query", asked)
        assert (found.status_code, found.json()["rows"]) == (200, [[2]]), found.text


@pytest.mark.parametrize(("role", "writing"), [("public", 403), ("keeper", 403), ("blind", 404)])
def test_a_session_that_may_not_be_seen_cannot_be_told_from_none(hiding: House, role: str, writing: int) -> None:
    before = hiding.core.corpus.last()
    for method, below, body in STORED:
        there, nowhere = (
            hiding.ask(
                role,
                method,
                f"/storage/{below}".replace(CANARY, name),
                body if isinstance(body, bytes) else json.loads(json.dumps(body).replace(CANARY, name)),
            )
            for name in (CANARY, "nothing")
        )
        # What is no record of the session but only names it is refused, too.
        status = writing if method != "GET" and not below.startswith("metrics") else 403
        assert (there.status_code, nowhere.status_code) == (status, status), (method, below, there.text)
        assert there.text.replace(CANARY, "nothing") == nowhere.text, (method, below)
        assert f"{CANARY}-agent" not in there.text
    for below in ("sessions", "sessions?deleted=true", "metrics", "metrics/aggregate?by=session_id", f"cache/{CANARY}"):
        refused = hiding.ask(role, "GET", f"/storage/{below}")
        assert refused.status_code == 403
    if role != "blind":  # its token names no collections, and so the cache, too
        for method in ("PUT", "DELETE"):
            assert hiding.ask(role, method, f"/storage/cache/{CANARY}", {"value": 1}).status_code == 403
        assert hiding.ask(role, "POST", "/storage/cache/cleanup").status_code == 403
    assert hiding.core.corpus.last() == before


def test_who_may_not_read_still_writes_its_own_sessions(hiding: House) -> None:
    made = hiding.ask("blind", "POST", "/storage/sessions", {"agent_name": "zoe", "id": "session_zoe"})
    assert made.status_code == 201
    assert hiding.ask("blind", "POST", "/storage/metrics", figure("session_zoe")).status_code == 201
    assert hiding.ask("blind", "PUT", "/storage/state/session_zoe", {"data": 1}).status_code == 200
    assert hiding.ask("blind", "GET", "/storage/state/session_zoe").status_code == 403


def test_a_live_feed_shows_what_may_be_seen_alone(hiding: House) -> None:
    shared = hiding.pens["shared"]
    cursor = hiding.ask("public", "GET", "/v1/feed?after=now").json()["cursor"]
    shared.put("live-1", f"{CANARY}", collection=f"table/{CANARY}")
    shared.put("live-2", "seen", collection="public/news")
    first = shared.head.seq - 1
    assert hiding.append("admin", shared.segment(first)).verdicts[0].state == "ack"
    found = hiding.ask("public", "GET", f"/v1/feed?wait=20&after={cursor}")
    assert [each["key"] for each in found.json()["records"]] == ["live-2"]
    assert CANARY not in found.text


def test_scopes_are_kept_apart(house: House) -> None:
    for method, path, body in (
        ("GET", "/v1/records", None),
        ("GET", "/v1/feed", None),
        ("POST", "/sync/message", {"content": 1}),
    ):
        refused = house.ask("appender", method, path, body)
        assert refused.status_code == 403
        assert refused.json()["error"]["context"]["scope"].startswith("records:")
    pull = f"/v1/pull?{of_ada(house)}"
    assert house.ask("appender", "GET", pull).status_code == 200, "a node takes back what is its agents'"
