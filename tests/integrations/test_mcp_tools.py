"""remember, recall, search, history, mail and files: on one machine, on two, without a hub, and with few rights."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import Hub, Store
from holdfast.collections.sessions import MESSAGE, SESSION, draft, key_of
from holdfast.errors import Denied, HubUnavailable, NotFound, UsageError
from holdfast.hub.principal import READ, WRITE, Principal
from holdfast.integrations.mcp_server import prompts, reach, resources
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.tools import chosen, schema_of
from tests.flow.hubs import HubProcess
from tests.integrations.mcp_places import TOOLS, answer, call
from tests.integrations.places import LIMITS
from tests.integrations.places import hub as hub
from tests.integrations.places import machines as machines


def texts(desk: Store | Desk, query: str = "", **more: Any) -> list[str]:
    return [each["text"] for each in call(desk, "recall", query=query, **more)["memories"]]


def test_what_is_remembered_is_found_replaced_and_forgotten(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as ada, Store(tmp_path, "eve", hub=[], limits=LIMITS) as eve:
        first = call(ada, "remember", text="She likes black tea", key="tea", tags=["she", " drinks "])
        assert (first["key"], first["agent"], first["replaced"], first["scope"]) == (
            "tea",
            "ada",
            False,
            "this machine",
        )
        assert first["tags"] == ["drinks", "she"]
        made = call(eve, "remember", text="The harbour opens at nine")
        assert made["key"].startswith("memory_")
        head = ada._log.corpus.last()
        assert call(ada, "remember", text="She likes black tea", key="tea", tags=["she", "drinks"])["replaced"]
        assert ada._log.corpus.last() == head, "said again it is not written again"
        assert texts(eve, "black tea") == ["She likes black tea"]
        assert texts(ada, "harbour opens") == ["The harbour opens at nine"]
        assert texts(ada) == ["The harbour opens at nine", "She likes black tea"]
        assert texts(ada, tags=["she"]) == texts(ada, "tea", tags=["she"]) == ["She likes black tea"]
        assert texts(ada, key="tea") == ["She likes black tea"]
        assert texts(ada, limit=1) == ["The harbour opens at nine"]

        assert call(eve, "remember", text="She likes coffee now", key="tea")["replaced"]
        assert texts(ada, "black") == [], "what was replaced does not come back"
        assert [each["text"] for each in call(ada, "search", query="black")["hits"]] == []
        assert [each["text"] for each in call(ada, "search", query="likes coffee")["hits"]] == ["She likes coffee now"]
        past = call(ada, "history", key="tea")["versions"]
        assert [(each["agent"], each["text"]) for each in past] == [
            ("eve", "She likes coffee now"),
            ("ada", "She likes black tea"),
        ]
        call(ada, "forget", key="tea")
        assert texts(eve, "coffee") == texts(eve, key="tea") == []
        assert call(eve, "history", key="tea")["versions"][0]["gone"]
        assert not call(eve, "remember", text="Neither", key="tea")["replaced"]
        assert texts(ada, key="tea") == ["Neither"]

        call(ada, "create_entities", entities=[{"name": "Kelp", "entityType": "alga", "observations": ["grips rock"]}])
        assert texts(eve, "grips rock") == ["Kelp (alga): grips rock"]
        assert len(call(eve, "history", key="Kelp", collection="graph")["versions"]) == 1
        for wrong in ({"text": " "}, {"text": "x", "key": " k"}, {"text": "x", "key": "graph/x"}, {"txt": "x"}):
            with pytest.raises(UsageError):
                call(ada, "remember", **wrong)
        for name, arguments in (("forget", {"key": "never"}), ("history", {"key": "never"})):
            with pytest.raises(NotFound):
                call(ada, name, **arguments)


def test_a_file_is_kept_with_its_versions_and_fetched_by_others(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as ada, Store(tmp_path, "eve", hub=[], limits=LIMITS) as eve:
        picture = bytes(range(256)) * 500
        made = call(ada, "artifact_put", name="a/june.md", text="# June\n", description="the report")
        assert (made["mediaType"], made["version"], made["size"]) == ("text/markdown", 1, 7)
        encoded = base64.b64encode(picture).decode()
        assert call(ada, "artifact_put", name="kelp.png", base64=encoded)["mediaType"] == "image/png"
        assert call(ada, "artifact_put", name="a/june.md", text="# June\n", description="the report")["version"] == 1
        found = answer(eve, "artifact_get", name="kelp.png")
        assert found.binary is not None
        assert (found.binary.data, found.binary.media_type) == (picture, "image/png")
        assert call(eve, "artifact_put", name="a/june.md", text="# June, again\n")["agent"] == "eve"
        assert call(ada, "artifact_get", name="a/june.md")["text"] == "# June, again\n"
        assert ada.get("a/june.md", collection="objects") == b"# June\n"
        page = call(ada, "artifact_list", limit=1)
        assert [each["name"] for each in page["artifacts"]] == [page["next"]] == ["a/june.md"]
        rest = call(ada, "artifact_list", after=page["next"])
        assert ([each["name"] for each in rest["artifacts"]], rest.get("next")) == (["kelp.png"], None)
        assert call(ada, "artifact_list", prefix="b")["artifacts"] == []
        for wrong in ({"text": "x", "base64": ""}, {}, {"base64": "%"}, {"text": "x", "name": "../x"}):
            with pytest.raises(UsageError):
                call(ada, "artifact_put", **{"name": "x", **wrong})
        with pytest.raises(NotFound, match="no artifact 'z'"):
            call(ada, "artifact_get", name="z")

        listed, following = resources.page(Desk(eve), None)
        assert following is None
        assert [each.uri for each in listed] == [
            "memory://knowledge-graph",
            "holdfast://memories",
            "holdfast://artifacts/a/june.md",
            "holdfast://artifacts/kelp.png",
        ]
        assert resources.read(Desk(eve), "holdfast://artifacts/kelp.png").data == picture
        assert resources.read(Desk(eve), "holdfast://artifacts/a/june.md").text == "# June, again\n"


def test_mail_is_sent_read_answered_and_marked(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as ada, Store(tmp_path, "eve", hub=[], limits=LIMITS) as eve:
        sent = call(ada, "send", to="eve", body={"look at": "a.py"}, thread="review", priority="high", dedupe="once")
        assert call(ada, "send", to="eve", body={"look at": "a.py"}, dedupe="once")["id"] == sent["id"]
        (letter,) = call(eve, "inbox")["messages"]
        assert (letter["sender"], letter["body"], letter["priority"]) == ("ada", {"look at": "a.py"}, "high")
        call(eve, "send", reply_to=sent["id"], body="Done")
        assert [each["body"] for each in call(ada, "inbox", thread="review")["messages"]] == [
            {"look at": "a.py"},
            "Done",
        ]
        call(eve, "mark", id=sent["id"], **{"as": "done"}, result={"rows": 3})
        assert call(eve, "inbox")["messages"] == []
        assert call(eve, "inbox", state="done")["messages"][0]["id"] == sent["id"]
        assert ada.delivery(sent["id"]).state == "done"
        with pytest.raises(Denied):
            call(Desk(ada).seen_by(Principal(kind="agent", name="ada", scopes=frozenset({READ, WRITE}))), "mark",
                 id=sent["id"], **{"as": "read"})  # fmt: skip
        for wrong in ({"body": "x"}, {"body": "x", "to": "eve", "reply_to": sent["id"]}):
            with pytest.raises(UsageError):
                call(ada, "send", **wrong)
        session = resources.read(Desk(eve), "holdfast://sessions/review")
        assert '"Done"' in (session.text or "")
        assert "holdfast://sessions/review" in [each.uri for each in resources.page(Desk(eve), None)[0]]
        with pytest.raises(NotFound):
            resources.read(Desk(eve), "holdfast://sessions/none")
        call(ada, "send", to="eve", body="and this?")
        call(ada, "remember", text="The review is about a.py", key="review")
        brief = prompts.text_of(Desk(eve), "brief", {"topic": "review"})
        assert "The review is about a.py" in brief
        assert "and this?" in brief
        with pytest.raises(UsageError):
            prompts.text_of(Desk(eve), "handover", {})


def test_two_machines_share_what_is_remembered(machines: tuple[Store, Store], hub: HubProcess) -> None:
    laptop, desk = machines
    call(laptop, "remember", text="The keel is oak", key=laptop.agent)
    assert texts(laptop, "keel oak") == ["The keel is oak"], "found by its writer before it has reached the hub"
    call(laptop, "artifact_put", name=f"{laptop.agent}/plan.txt", text="lay the keel " * 10_000)
    assert laptop.flush(30)
    found = call(desk, "recall", query="keel oak")
    assert [each["text"] for each in found["memories"]] == ["The keel is oak"]
    assert (found["scope"], found["memories"][0]["agent"]) == ("everybody", laptop.agent)
    assert call(desk, "artifact_get", name=f"{laptop.agent}/plan.txt")["size"] == 130_000
    assert call(desk, "remember", text="The keel is steel", key=laptop.agent)["replaced"]
    assert desk.flush(30)
    assert texts(laptop, "keel") == ["The keel is steel"]
    assert [each["text"] for each in call(laptop, "history", key=laptop.agent)["versions"]] == [
        "The keel is steel",
        "The keel is oak",
    ]
    call(laptop, "send", to=desk.agent, body="ahoy")
    assert laptop.flush(30)
    assert [each["body"] for each in call(desk, "inbox")["messages"]] == ["ahoy"]
    hub.kill()
    try:
        away = call(laptop, "recall", query="keel oak")
        assert (away["scope"], [each["text"] for each in away["memories"]]) == ("this machine", ["The keel is oak"])
        assert "the hub does not answer" in away["note"]
        kept = call(laptop, "remember", text="The mast is ash", key=f"{laptop.agent}-mast")
        assert (kept["scope"], kept["text"]) == ("this machine", "The mast is ash")
        assert "note" in call(laptop, "inbox")
    finally:
        hub.start()
    assert laptop.flush(30)
    assert texts(desk, key=f"{laptop.agent}-mast") == ["The mast is ash"]


def test_sessions_of_all_kinds_can_be_attached(machines: tuple[Store, Store], hub: HubProcess) -> None:
    laptop, desk = machines
    session, other = f"session_{laptop.agent}", f"session_hub-{laptop.agent}"
    about: dict[str, Any] = {"agent_name": laptop.agent, "status": "active", "created_at": "2026-01-01T00:00:00Z"}
    about |= {"updated_at": "2026-01-02T00:00:00Z", "metadata": {"title": "The keel", "tool": "claude-code"}}

    def write(kind: str, part: str, content: dict[str, Any]) -> None:  # as whoever follows transcripts does
        made = draft(kind, key_of(session, kind, part), content)
        laptop._append((msgspec.structs.replace(made, tags=()),), False)

    write(SESSION, "", about)
    for number in (3, 1, 2):
        said = {"role": "user", "content": f"number {number}", "timestamp": "2026-01-02T00:00:00Z"}
        write(MESSAGE, f"m{number}", said)

    def listed(store: Store) -> dict[str, str]:
        return {each.uri: each.title for each in resources.page(Desk(store), None)[0]}

    def shown(store: Store, name: str) -> list[Any]:
        content = resources.read(Desk(store), f"holdfast://sessions/{name}").text or ""
        return [each["content"] for each in msgspec.json.decode(content)["messages"]]

    assert listed(laptop)[f"holdfast://sessions/{session}"] == "The keel", "before it has reached the hub"
    assert laptop.flush(30)
    with Hub(hub.url) as plain:
        plain.sessions.create(desk.agent, id=other)
        plain.sessions.add(other, "user", "through the hub")
    for store in machines:
        assert {f"holdfast://sessions/{session}", f"holdfast://sessions/{other}"} <= listed(store).keys()
        assert shown(store, session) == ["number 3", "number 1", "number 2"]
        assert shown(store, other) == ["through the hub"]
    hub.kill()
    try:
        assert shown(laptop, session) == ["number 3", "number 1", "number 2"]
        assert listed(laptop)[f"holdfast://sessions/{session}"] == "The keel"
        with pytest.raises(NotFound):
            resources.read(Desk(desk), f"holdfast://sessions/{session}")
    finally:
        hub.start()


def test_rivals_are_shown_until_they_are_settled(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        with (
            Store(tmp_path / "a", "laptop", hub=hub.url, limits=LIMITS) as laptop,
            Store(tmp_path / "b", "desk", hub=hub.url, limits=LIMITS) as desk,
        ):
            Desk(laptop)
            Desk(desk)
            hub.kill()
            call(laptop, "remember", text="tea", key="drink")
            call(desk, "remember", text="coffee", key="drink")
            hub.start()
            assert laptop.flush(30)
            assert desk.flush(30)
            (found,) = call(laptop, "recall", key="drink")["memories"]
            assert sorted([found["text"], *found["rivals"]]) == ["coffee", "tea"]
            call(laptop, "remember", text="both", key="drink")
            assert laptop.flush(30)
            (found,) = call(desk, "recall", key="drink")["memories"]
            assert (found["text"], found["rivals"]) == ("both", [])
    finally:
        hub.kill()


def test_a_hub_that_hangs_is_not_waited_for_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def hanging() -> str:
        asked.append(1)
        raise HubUnavailable("it hangs")

    monkeypatch.setattr(reach, "SLOW_S", -1.0)  # any time is a long one
    with Store(tmp_path, "ada", hub="http://127.0.0.1:9", limits=LIMITS) as store, reach.noting() as missed:
        line = reach.Line(store)
        assert [line.ask(hanging, lambda: "from here") for _ in range(3)] == ["from here"] * 3
        assert (len(asked), missed) == (1, ["it hangs"])
        monkeypatch.setattr(reach, "SLOW_S", 3600.0)
        line = reach.Line(store)
        assert [line.ask(hanging, lambda: "from here") for _ in range(3)] == ["from here"] * 3
        assert len(asked) == 4, "one that says no at once is asked again"


def test_a_token_opens_what_it_names_and_no_more(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
        desk = Desk(store)
        call(desk, "remember", text="a secret of state", key="s")
        call(desk, "send", to="eve", body="a secret word")
        reader = desk.seen_by(Principal(kind="service", name="r", scopes=frozenset({READ}), agents=()))
        assert texts(reader, "secret") == ["a secret of state"]
        with pytest.raises(Denied, match="records:write"):
            call(reader, "remember", text="x")
        other = desk.seen_by(Principal(kind="agent", name="eve", scopes=frozenset({READ, WRITE}), agents=("eve",)))
        with pytest.raises(Denied, match="may not write as the agent 'ada'"):
            call(other, "create_entities", entities=[])
        mail = desk.seen_by(Principal(kind="service", name="m", scopes=frozenset({READ}), collections=("messages",)))
        assert [hit["collection"] for hit in call(mail, "search", query="secret")["hits"]] == ["messages"]
        for name, arguments in (
            ("recall", {"query": "secret"}),
            ("read_graph", {}),
            ("history", {"key": "s"}),
            ("search", {"query": "secret", "collection": "memory"}),
        ):
            with pytest.raises(Denied, match="may not read"):
                call(mail, name, **arguments)
        assert [each.uri for each in resources.page(mail, None)[0]] == []
        with pytest.raises(Denied):
            resources.read(mail, "holdfast://memories")
        nobody = desk.seen_by(Principal(kind="service", name="n", scopes=frozenset({WRITE})))
        with pytest.raises(Denied):
            call(nobody, "inbox")


def test_every_tool_says_what_it_takes_gives_and_does() -> None:
    assert len({tool.name for tool in TOOLS}) == len(TOOLS) == 20
    for tool in TOOLS:
        for schema in (tool.input_schema, tool.output_schema):
            assert schema["type"] == "object"
            assert "$ref" not in str(schema), "some clients do not follow references"
        assert tool.reference or tool.input_schema["additionalProperties"] is False
        assert len(tool.description) > 20
    assert not any(tool.writes for tool in chosen(TOOLS, ["graph"], read_only=True))
    assert {tool.name for tool in chosen(TOOLS, ["graph"])} == {tool.name for tool in TOOLS if tool.reference}
    with pytest.raises(UsageError, match="no tools for 'grahp'"):
        chosen(TOOLS, ["grahp"])

    class Twice(msgspec.Struct):
        one: list[int]

    assert schema_of(Twice)["required"] == ["one"]
