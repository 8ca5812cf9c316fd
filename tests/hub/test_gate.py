"""The gate: tokens that are made, used, end and are revoked; hosts, other sites' pages, rates, and too much at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.corpus.space import Reserve
from holdfast.errors import HoldfastError, HubUnavailable
from holdfast.hub.app import create_app
from holdfast.hub.core import Core
from holdfast.hub.directory import HubDirectory
from holdfast.hub.exchange import check_json
from holdfast.hub.gate import HEADERS_MAX, HELD_BYTES_MAX, Gate, host_name
from holdfast.hub.options import Options
from holdfast.hub.principal import NOBODY
from holdfast.hub.token_text import join, split
from holdfast.hub.tokens import SqliteTokens, Tokens, TokenStore, Wish, create, revoke
from holdfast.hub.tokens_database import tokens_of
from holdfast.hub.tokens_none import NoTokens
from holdfast.testing.clock import SettableClock as Clock
from tests.services import shared_postgres

DAY_MS = 86_400_000
FOR_READING = Wish(kind="service", name="dashboard")


Open = Callable[[], TokenStore]


@pytest.fixture(params=["directory", "database"])
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens where the tokens of one hub lie, as each of several processes would."""
    with contextlib.ExitStack() as stack:
        if request.param == "directory":
            yield lambda: stack.enter_context(contextlib.closing(SqliteTokens(tmp_path)))
        else:
            address = shared_postgres().corpus()
            yield lambda: stack.enter_context(tokens_of(address))


@pytest.fixture
def store(opened: Open) -> TokenStore:
    """Where tokens lie."""
    return opened()


# -- tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_known_by_its_whole_text(store: TokenStore) -> None:
    token, text = create(store, FOR_READING)
    tokens = Tokens(store)
    assert tokens.look(text.encode()) == token.principal
    assert tokens.known(text.encode()) == token.principal
    kind, token_id, secret = split(text) or ("", "", "")
    other = create(store, FOR_READING)[1]
    wrong = {
        "another secret": join(kind, token_id, "0" * 43),
        "another's id": join(kind, (split(other) or ("", "", ""))[1], secret),
        "another kind": join("person", token_id, secret),
        "an id that nobody has": join(kind, "0" * 10, secret),
        "a torn end": text[:-1],
        "another check": text[:-6] + "000000",
        "nothing": "",
        "no token": "open sesame",
        "not ASCII": text + "é",
        "its hash": token.digest.hex(),
    }
    assert {name: tokens.look(each.encode()) for name, each in wrong.items()} == dict.fromkeys(wrong)
    assert [tokens.known(each.encode()) for each in wrong.values()] == [None] * len(wrong)


def test_whoever_is_told_in_whose_names_may_write(store: TokenStore) -> None:
    for kind in ("service", "person"):
        token = create(store, Wish(kind=kind, name="app", agents=("recruiter-*",)))[0]  # type: ignore[arg-type]
        assert token.principal.may_write("recruiter-1", "messages")
        assert "records:write" in token.scopes
        assert "records:write" not in create(store, Wish(kind=kind, name="app"))[0].scopes  # type: ignore[arg-type]


def test_a_token_ends_by_itself_also_where_it_was_known(store: TokenStore) -> None:
    clock = Clock()
    wish = Wish(kind="agent", name="ada", ends_ms=clock.now_ms() + DAY_MS)
    text = create(store, wish, clock)[1].encode()
    tokens = Tokens(store, clock)
    assert tokens.look(text) is not None
    clock.advance(DAY_MS / 1000 - 1)
    assert tokens.known(text) is not None
    clock.advance(1)
    assert tokens.known(text) is None
    assert tokens.look(text) is None


def test_a_revocation_by_another_process_is_seen_at_the_next_look(store: TokenStore, opened: Open) -> None:
    token, text = create(store, FOR_READING)
    tokens = Tokens(store)
    principal = tokens.look(text.encode())
    assert principal is not None
    assert tokens.holds(principal)
    assert not tokens.refresh(), "nothing has changed"
    other = opened()
    assert revoke(other, token.id)[1]
    assert not revoke(other, token.id)[1]
    assert [each.state(0) for each in store.every()] == ["revoked"]
    assert tokens.refresh()
    assert tokens.known(text.encode()) is None
    assert tokens.look(text.encode()) is None
    assert not tokens.holds(principal)
    assert tokens.in_force, "a hub whose last token was revoked stays closed"


def test_what_is_found_while_a_revocation_arrives_is_not_remembered(store: TokenStore) -> None:
    token, text = create(store, FOR_READING)

    class Slow(NoTokens):
        def __init__(self) -> None:
            self.tokens: Any = None

        def find(self, token_id: str) -> Any:
            found = store.find(token_id)
            store.revoke(token.id, 1)  # by another process, behind the look
            self.tokens.refresh()
            return found

        def changes(self) -> tuple[int, bool]:
            return store.changes()

    slow = Slow()
    slow.tokens = tokens = Tokens(slow)
    tokens.look(text.encode())
    assert tokens.known(text.encode()) is None


def test_tokens_are_kept_whole_and_in_their_order(opened: Open) -> None:
    store, clock = opened(), Clock()
    assert (store.every(), store.changes(), store.find("nobody")) == ([], (0, False), None)
    made = []
    for name in ("ada", "bob's 100 % ✓"):
        ends = clock.now_ms() + DAY_MS
        wish = Wish(
            kind="node", name=name, agents=("a*", "b-?"), collections=("x/*", "y"), ends_ms=ends, note="a\tnote"
        )
        made.append(create(store, wish, clock)[0])
        clock.advance(1)
    for each in (store, opened()):
        assert each.every() == made
        assert [each.find(token.id) for token in made] == made
        assert each.changes() == (2, True)
    assert not store.revoke("nobody", 1)
    assert store.changes()[0] == 2
    assert store.revoke(made[0].id, clock.now_ms())
    assert opened().changes() == (3, True)


def test_use_is_noted_lazily(store: TokenStore) -> None:
    clock = Clock()
    token, text = create(store, FOR_READING, clock)
    tokens = Tokens(store, clock)
    tokens.look(text.encode())
    clock.advance(5)
    tokens.known(text.encode())
    assert store.every()[0].used_ms is None
    tokens.keep()
    assert store.every()[0].used_ms == clock.now_ms()
    assert store.changes()[0] == 1, "to be used is no change that others must look at"
    assert store.find(token.id) == store.every()[0]


# -- a hub ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(tmp_path: Path, **options: Any) -> Iterator[tuple[TestClient, Core]]:
    """A hub with these options."""
    home = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    app = create_app(home, **options)
    with TestClient(app, base_url="http://127.0.0.1:8084", raise_server_exceptions=False) as client:
        yield client, app.state.core


def test_an_open_hub_closes_when_the_first_token_is_made(tmp_path: Path) -> None:
    with running(tmp_path) as (client, core):
        assert client.get("/v1/records").status_code == 200
        store = SqliteTokens(core.home.path)
        token, text = create(store, FOR_READING)
        client.portal.call(core.gate.look_again)
        assert client.get("/v1/records").status_code == 401
        bearer = {"Authorization": f"bearer {text}"}
        assert client.get("/v1/records", headers=bearer).status_code == 200
        assert client.get("/v1/records", headers={"Authorization": f"Basic {text}"}).status_code == 401
        revoke(store, token.id)
        client.portal.call(core.gate.look_again)
        assert client.get("/v1/records", headers=bearer).status_code == 401
        store.close()


def test_the_operators_token_works_beside_those_that_were_made(tmp_path: Path) -> None:
    with running(tmp_path, token="s3cret") as (client, core):
        store = SqliteTokens(core.home.path)
        _, text = create(store, FOR_READING)
        store.close()
        for shown, status in (("s3cret", 200), (text, 403), ("wrong", 401)):
            answer = client.post("/sync/message", json={"content": 1}, headers={"Authorization": f"Bearer {shown}"})
            assert answer.status_code == status


def test_a_feed_ends_with_the_token_that_opened_it(tmp_path: Path) -> None:
    with running(tmp_path) as (client, core):
        store = SqliteTokens(core.home.path)
        (one, first), (_, second) = create(store, FOR_READING), create(store, FOR_READING)
        client.portal.call(core.gate.look_again)
        answers: dict[str, Any] = {}

        def follow(text: str) -> None:
            answers[text] = client.get("/v1/feed?wait=50", headers={"Authorization": f"Bearer {text}"})

        threads = [threading.Thread(target=follow, args=(text,)) for text in (first, second)]
        for thread in threads:
            thread.start()
        while core.feed.listeners < 2 or len(core.gate.lingering) < 2:
            threads[0].join(0.01)
        revoke(store, one.id)
        client.portal.call(core.gate.look_again)
        threads[0].join(30)
        assert answers[first].status_code == 401
        assert threads[1].is_alive(), "the other's feed goes on"
        core.end_streams()
        threads[1].join(30)
        store.close()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8084", 200),
        ("localhost", 200),
        ("[::1]:8084", 200),
        ("10.1.2.3:8084", 200),
        ("Hub.Example.:443", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("hub.example.evil.example:8084", 421),
    ],
)
def test_a_hub_answers_to_its_own_names_alone(tmp_path: Path, host: str, status: int) -> None:
    with running(tmp_path, hosts=("localhost", "hub.example")) as (client, _):
        for _ in range(2):
            answer = client.get("/livez", headers={"Host": host})
            assert answer.status_code == status
        if status == 421:
            assert f"--host-name {host_name(host)}" in answer.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:8084", 200),
        ("https://hub.example", 200),
        ("http://127.0.0.1:3000", 403),
        ("http://localhost:3000", 403),
        ("https://evil.example", 403),
        ("null", 403),
    ],
)
def test_a_page_of_another_site_writes_nothing(tmp_path: Path, origin: str | None, status: int) -> None:
    with running(tmp_path, hosts=("localhost", "hub.example")) as (client, core):
        headers = {"Origin": origin} if origin else {}
        answer = client.post("/sync/message", json={"content": 1}, headers=headers)
        assert answer.status_code == status
        assert core.corpus.last() == (status == 200)
        read = client.get("/v1/records", headers=headers)
        assert read.status_code == 200
        assert not [name for name in read.headers if name.startswith("access-control-")], "the browser keeps it back"


def test_every_answer_tells_browsers_to_make_nothing_of_it(tmp_path: Path) -> None:
    with running(tmp_path, tls_cert="x") as (client, _):
        for path in ("/livez", "/nowhere", "/v1/feed", "/docs"):
            answer = client.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            assert len(answer.headers.get_list("referrer-policy")) == 1


def test_whoever_asks_too_often_waits_and_the_others_do_not(tmp_path: Path) -> None:
    with running(tmp_path, rate=2.0) as (client, core):
        store = SqliteTokens(core.home.path)
        texts = [create(store, FOR_READING)[1] for _ in range(2)]
        node = create(store, Wish(kind="node", name="laptop", agents=("*",)))[1]
        store.close()
        client.portal.call(core.gate.look_again)

        def ask(text: str, path: str = "/v1/nodes") -> Any:
            return client.get(path, headers={"Authorization": f"Bearer {text}"})

        answers = [ask(texts[0]) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 2
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].json()["error"]["code"] == "hub_unavailable"
        assert ask(texts[1]).status_code == 200
        assert [ask(node).status_code for _ in range(12)] == [200] * 12
        assert [ask(texts[0], "/livez").status_code for _ in range(12)] == [200] * 12


# -- the gate by itself -----------------------------------------------------------------------------------------


def scope(path: str = "/v1/records", **more: Any) -> dict[str, Any]:
    """A request's."""
    return {"type": "http", "method": "POST", "path": path, "headers": [], **more}


def gate(**options: Any) -> Gate:
    """One of a hub that keeps no tokens."""

    async def read(work: Any) -> Any:
        return work()

    return Gate(Options(**options), Tokens(NoTokens()), Clock(), read)


async def nothing() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def refusal(error: HoldfastError) -> tuple[int, str]:
    return error.status, error.code


def test_so_many_at_once_and_no_more_but_probes_and_feeds() -> None:
    async def run() -> None:
        door = gate(concurrent=2)
        first, second = [await door.enter(scope(), nothing) for _ in range(2)]
        with pytest.raises(HubUnavailable, match="2 requests are under way") as caught:
            await door.enter(scope(), nothing)
        assert caught.value.status == 503
        others = [await door.enter(scope(path), nothing) for path in ("/livez", "/readyz", "/v1/feed")]
        door.leave(first)
        third = await door.enter(scope(), nothing)
        for visit in (second, third, *others):
            door.leave(visit)
        assert (door.busy, door.held) == (0, 0)

    asyncio.run(run())


def test_too_many_headers_are_refused() -> None:
    async def run() -> None:
        headers = [(b"x", b"1")] * (HEADERS_MAX + 1)
        with pytest.raises(HoldfastError) as caught:
            await gate().enter(scope(headers=headers), nothing)
        assert refusal(caught.value) == (431, "usage")

    asyncio.run(run())


def test_bodies_under_way_have_so_much_memory_and_no_more() -> None:
    async def run() -> None:
        door = gate()
        large, small = [await door.enter(scope(), nothing) for _ in range(2)]
        large.hold(HELD_BYTES_MAX + 1)  # alone it may: the cap of one body is another
        with pytest.raises(HubUnavailable, match="32 MiB of bodies are under way"):
            small.hold(1)
        door.leave(large)
        small.hold(1)
        door.leave(small)
        assert door.held == 0

    asyncio.run(run())


def test_a_token_that_is_not_needed_is_nobodys_business() -> None:
    async def run() -> None:
        for shown, options in ((b"Bearer x", {}), (b"", {"token": "t"})):
            visit = await gate(**options).enter(scope(headers=[(b"authorization", shown)]), nothing)
            assert (visit.principal is NOBODY) == bool(options)

    asyncio.run(run())


# -- JSON -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        b"[" * 64 + b"]" * 64,
        json.dumps(["[{" * 500, '\\"[', {'a": [': 1}, [[0]] * 200]).encode(),
        b'{"a": 9223372036854775807, "b": -9223372036854775808, "c": 0.12345678901234567890123, "d": 1e300}',
        json.dumps({"id": "9" * 40, 'a"9999999999999999999999': 1}).encode(),
        b"[12345678901234567890.5, 12345678901234567890e2]",
        json.dumps("a," * 1_000_000).encode(),
        b"not json at all [[[",
    ],
)
def test_json_that_can_be_read_passes(good: bytes) -> None:
    check_json(good)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 40 + b"[" * 40 + b"1" + b"]" * 40 + b"}" * 40, "deeper than 64"),
        (b'["\\\\", ' * 65 + b"1" + b"]" * 65, "deeper than 64"),
        (b'["\\"", ' * 65 + b"1" + b"]" * 65, "deeper than 64"),
        (b"[9223372036854775808]", "whole number of 19 digits"),
        (b'{"a": -9223372036854775809}', "whole number of 20 digits"),
        (b'{"\\\\": 99999999999999999999}', "whole number of 20 digits"),
        (b"[" + b"1," * 250_000 + b"1]", "more than 250,000 things"),
    ],
)
def test_json_that_is_a_bomb_is_refused(bad: bytes, said: str) -> None:
    with pytest.raises(HoldfastError, match=said):
        check_json(bad)
