"""Nodes and tokens: a stream that is denied waits without holding up the others, and nothing is lost by any of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Hub, Store
from holdfast.errors import Denied, Unauthenticated
from holdfast.hub.tokens import SqliteTokens, Wish, create, revoke
from tests.flow.hubs import HubProcess, until
from tests.hub.lines import Events

On = Callable[..., Store]


@pytest.fixture
def tokens(hub: HubProcess) -> Iterator[SqliteTokens]:
    """Who may ask the hub."""
    store = SqliteTokens(hub.directory)
    create(store, Wish(kind="service", name="the first"))

    def closed() -> bool:
        with Hub(hub.url) as stranger, contextlib.suppress(Unauthenticated):
            stranger.agents()
            return False
        return True

    until(closed, "the hub wants tokens")
    yield store
    store.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was denied is tried again at once, and not after a minute."""
    for room in ("outbox", "patience"):
        monkeypatch.setattr(f"holdfast.protocol.{room}.SLOW", 0.1)


def node(name: str, *agents: str, **wish: Any) -> Wish:
    """A node's token for these agents."""
    return Wish(kind="node", name=name, agents=agents, **wish)


def alert(store: Store) -> str:
    """What is wrong with the store's first hub."""
    return str(store.health()["hubs"][0]["alert"])


@pytest.mark.usefixtures("quick")
def test_an_agent_that_is_denied_does_not_hold_up_its_neighbours(
    hub: HubProcess, tokens: SqliteTokens, on_node: On, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    narrow, text = create(tokens, node("laptop", "ada-*"))
    token.write_text(text)
    ada, bob = (on_node("laptop", name, token=token) for name in ("ada-1", "bob"))
    bob.put("k", "waits")
    until(lambda: "bob: node laptop may not write as the agent 'bob'" in alert(bob), "the denial was noticed")
    for number in range(3):
        ada.put("k", number)
        assert ada.flush(30), "the others go on"
    assert "bob" in alert(ada), "and it is still said"
    assert any("denies the records of bob" in each for each in bob.health()["problems"])
    assert bob.outbox_depth == 1
    assert ada.get("k", agent="ada-1") == 2
    # A wider token in the file is found by itself; the other may go.
    token.write_text(create(tokens, node("laptop", "ada-*", "bob"))[1])
    assert bob.flush(30)
    revoke(tokens, narrow.id)
    ada.put("k", 3)
    assert ada.flush(30)
    until(lambda: alert(bob) == "", "all is well")
    with Hub(hub.url, token) as reader:
        assert reader.get("k", agent="bob") == "waits"
        assert [each.value for each in reader.history("k", agent="ada-1")] == [3, 2, 1, 0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("why", ["revoked", "expired", "read only"])
def test_a_token_that_does_not_hold_any_more_costs_nothing(
    hub: HubProcess, tokens: SqliteTokens, on_node: On, tmp_path: Path, why: str
) -> None:
    token = tmp_path / "token"
    made, text = create(tokens, node("laptop", "ada"))
    token.write_text(text)
    ada = on_node("laptop", "ada", token=token)
    ada.put("k", 1)
    assert ada.flush(30)
    if why == "revoked":
        revoke(tokens, made.id)
    elif why == "expired":
        tokens._engine.commits.run(lambda _: tokens._engine.writer_execute("UPDATE token SET ends_ms=1"))
        revoke(tokens, create(tokens, node("x", "x"))[0].id)  # so that the hub looks
    else:
        token.write_text(create(tokens, node("laptop", "ada", scopes=("records:read",)))[1])
        revoke(tokens, made.id)
    status = "403" if why == "read only" else "401"

    def denied() -> bool:
        ada.put("k", 2)
        return f"the hub answered {status}: this node's credential is not accepted" in alert(ada)

    until(denied, "the refusal was noticed")
    assert ada.health()["hubs"][0]["state"] == "denied"
    assert ada.outbox_depth
    if why != "read only":
        with pytest.raises(Unauthenticated):
            ada.get("k", agent="nobody")
    token.write_text(create(tokens, node("laptop", "ada"))[1])
    assert ada.flush(30)
    with Hub(hub.url, token) as reader:
        assert reader.get("k", agent="ada") == 2


@pytest.mark.usefixtures("quick")
def test_a_token_that_a_command_prints_is_asked_for_again_once_it_is_refused(
    hub: HubProcess, tokens: SqliteTokens, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text((first := create(tokens, node("laptop", "ada")))[1])
    runs = f"printf x >> {tmp_path}/runs; cat {tmp_path}/token"
    (tmp_path / "holdfast.yaml").write_text(
        f"store: {{path: ./laptop}}\nagent: {{id: ada}}\nhub:\n  urls: {hub.url}\n  token_command: [sh, -c, '{runs}']\n"
    )
    with Store.from_config(tmp_path / "holdfast.yaml") as ada:
        ada.put("plan", 1)
        assert ada.flush(30)
        assert (tmp_path / "runs").read_text() == "x", "one run is enough for all that asks the hub"
        (tmp_path / "token").write_text(create(tokens, node("laptop", "ada"))[1])
        revoke(tokens, first[0].id)

        def goes_on() -> bool:
            ada.put("plan", 2)
            return ada.flush(1.0) and (tmp_path / "runs").read_text() != "x"

        until(goes_on, "it goes on with the token that is printed now")
    assert first[1] not in "".join(path.read_text(errors="replace") for path in (tmp_path / "laptop").glob("*.json"))


def test_a_live_feed_ends_with_its_token(hub: HubProcess, tokens: SqliteTokens) -> None:
    made, text = create(tokens, Wish(kind="service", name="dashboard"))
    events = Events(hub.url, token=text)
    assert events.until("caught_up")
    revoke(tokens, made.id)
    assert [event for event, _, _ in events if event != "comment"] == [], "and that was the end of it"
    events.close()


def test_a_standby_needs_to_read_everything_and_no_more(
    hub: HubProcess, tokens: SqliteTokens, on_node: On, tmp_path: Path
) -> None:
    ada = on_node("laptop", "ada", token=create(tokens, Wish(kind="agent", name="ada"))[1])
    ada.put("k", b"\x01" * 100_000)
    assert ada.flush(30)
    text = create(tokens, Wish(kind="service", name="standby"))[1]
    standby = HubProcess(tmp_path / "standby", follow=hub.url, follow_token=text)
    try:

        def held() -> bool:
            with Hub(standby.url) as reader:
                return bool(reader.get("k", agent="ada", default=b"") == b"\x01" * 100_000)

        until(held, "the standby holds it, too")
    finally:
        standby.kill()


def test_an_agents_own_token_is_enough_for_its_node(hub: HubProcess, tokens: SqliteTokens, on_node: On) -> None:
    text = create(tokens, Wish(kind="agent", name="ada"))[1]
    ada = on_node("laptop", "ada", token=text, cas=("claims",))
    with ada.changes("now") as changes:
        ada.put("blob", b"\x00" * 100_000)
        ada.post("hello", to="bob")
        assert ada.put("task", "mine", collection="claims", expect=0).version == 1
        assert ada.flush(30)
        assert {next(changes).agent for _ in range(3)} == {"ada", "hub"}
    with Hub(hub.url, text) as reader:
        reader.post("as herself", agent="ada")
        with pytest.raises(Denied):
            reader.post("as another", agent="bob")
