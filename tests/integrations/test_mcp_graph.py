"""The knowledge graph: the reference server's meaning on one machine, and what becomes of it on two."""

from __future__ import annotations

import itertools
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from holdfast.cli import main
from holdfast.errors import NotFound, UsageError
from holdfast.integrations.mcp_server import graph
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.jsonl import lines, take
from holdfast.node.shelf import Row
from tests.flow.hubs import HubProcess
from tests.integrations.mcp_places import Reference, Refused, answer, call, said_by
from tests.integrations.places import LIMITS
from tests.integrations.places import hub as hub
from tests.integrations.places import machines as machines

NAMES = st.sampled_from(["Ada", "ada", "Tea/House", "Ωmega ☕", "", "x" * 300])
TEXTS = st.sampled_from(["likes tea", "Likes TEA", "äöü\n☕", "", "tea"])
TYPES = st.sampled_from(["person", "place", ""])
ENTITY = st.fixed_dictionaries({"name": NAMES, "entityType": TYPES, "observations": st.lists(TEXTS, max_size=3)})
RELATION = st.fixed_dictionaries({"from": NAMES, "to": NAMES, "relationType": st.sampled_from(["knows", "is in"])})


def few(what: Any) -> Any:
    return st.lists(what, max_size=3)


def one(name: str, **arguments: Any) -> Any:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


STEPS = st.lists(
    st.one_of(
        one("create_entities", entities=few(ENTITY)),
        one("create_entities", entities=few(ENTITY)),
        one("create_relations", relations=few(RELATION)),
        one(
            "add_observations",
            observations=few(st.fixed_dictionaries({"entityName": NAMES, "contents": few(TEXTS)})),
        ),
        one("delete_entities", entityNames=few(NAMES)),
        one(
            "delete_observations",
            deletions=few(st.fixed_dictionaries({"entityName": NAMES, "observations": few(TEXTS)})),
        ),
        one("delete_relations", relations=few(RELATION)),
        one("search_nodes", query=TEXTS),
        one("open_nodes", names=few(NAMES)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_the_nine_tools_mean_what_the_reference_server_means(steps: list[tuple[str, dict[str, Any]]]) -> None:
    oracle = Reference()
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        desk = Desk(store)
        for name, arguments in steps:
            try:
                expected = oracle.call(name, arguments)
            except Refused as error:
                expected = str(error)
            assert said_by(desk, name, arguments) == expected, (name, arguments)
            assert call(desk, "read_graph") == oracle.read_graph(), (name, arguments)
        # Its own file goes out and comes in as the same graph, and a second time changes nothing.
        file = b"".join(lines(desk.graph))
        assert file == oracle.lines()
        with Store(directory, "eve", hub=[], limits=LIMITS) as other:
            head = other._log.corpus.last()
            taken = take(Desk(other).graph, file)  # ada's is known here: nothing is missing
            assert (taken.entities, taken.relations, taken.observations, other._log.corpus.last()) == (0, 0, 0, head)


def test_texts_are_those_of_the_reference_server(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
        ada = {"name": "Ada", "entityType": "person", "observations": []}
        assert answer(store, "create_entities", entities=[ada]).text == json.dumps([ada], indent=2)
        assert answer(store, "delete_relations", relations=[]).text == "Relations deleted successfully"
        with pytest.raises(NotFound, match="Entity with name Bob not found"):
            call(store, "add_observations", observations=[{"entityName": "Bob", "contents": ["x"]}])
        with pytest.raises(UsageError, match=r"Expected `str`, got `int` - at `\$\.entities\[0\]\.name`"):
            call(store, "create_entities", entities=[{"name": 1, "entityType": "", "observations": []}])
        with pytest.raises(UsageError, match="length <= 2048"):
            call(store, "search_nodes", query="x" * 2049)
        assert call(store, "read_graph", unknown=True)["entities"] == [ada]  # as there, what it does not know is let be


def entity(name: str, *observations: str, kind: str = "thing") -> dict[str, Any]:
    return {"name": name, "entityType": kind, "observations": list(observations)}


def adds(name: str, *texts: str) -> dict[str, Any]:
    return {"observations": [{"entityName": name, "contents": list(texts)}]}


def known(store: Store | Desk) -> dict[str, list[str]]:
    return {each["name"]: each["observations"] for each in call(store, "read_graph")["entities"]}


def test_what_two_machines_change_at_once_is_merged(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        with (
            Store(tmp_path / "a", "laptop", hub=hub.url, limits=LIMITS) as laptop,
            Store(tmp_path / "b", "desk", hub=hub.url, limits=LIMITS) as desk,
        ):
            call(laptop, "create_entities", entities=[entity(name, "old", "older") for name in ("A", "B", "C", "D")])
            relation = {"from": "A", "to": "B", "relationType": "knows"}
            call(laptop, "create_relations", relations=[relation])
            assert laptop.flush(30)
            assert call(desk, "read_graph") == call(laptop, "read_graph")
            call(desk, "add_observations", **adds("D", "desk's"))  # its own row, over the laptop's
            assert desk.flush(30)

            hub.kill()  # from here on neither knows of the other
            there = answer(laptop, "add_observations", **adds("A", "from the laptop", "of both"))
            assert "the hub does not answer" in there.note
            call(laptop, "delete_observations", deletions=[{"entityName": "A", "observations": ["old"]}])
            call(laptop, "delete_observations", deletions=[{"entityName": "D", "observations": ["old"]}])
            call(desk, "add_observations", **adds("D", "more"))
            call(laptop, "delete_entities", entityNames=["B"])
            call(laptop, "create_entities", entities=[entity("new", "laptop's", kind="first")])
            # The desk has never seen rows of the laptop's but through the hub: it goes by its own.
            assert known(desk) == {"D": ["old", "older", "desk's", "more"]}
            call(desk, "create_entities", entities=[entity("new", "desk's", kind="second"), entity("E", "desk's")])
            call(desk, "create_entities", entities=[entity("A", "from the desk", "of both", kind="late")])
            hub.start()
            assert laptop.flush(30)
            assert desk.flush(30)

            found = known(laptop)
            assert found == known(desk)
            assert sorted(found["A"]) == ["from the desk", "from the laptop", "of both", "older"], (
                "none lost, none twice"
            )
            assert sorted(found["D"]) == ["desk's", "more", "older"], "what one deleted the other does not bring back"
            assert sorted(found["new"]) == ["desk's", "laptop's"]
            assert set(found) == {"A", "C", "D", "E", "new"}, "what was deleted is gone for both"
            whole = call(desk, "read_graph")
            assert {each["name"]: each["entityType"] for each in whole["entities"]} == {
                "A": "thing",
                "C": "thing",
                "D": "thing",
                "E": "thing",
                "new": "first",
            }
            assert whole["relations"] == []
            # Whoever changes it next settles it: one row stands for all.
            call(desk, "add_observations", **adds("A", "settled"))
            assert desk.flush(30)
            assert len(Desk(laptop).graph.shared.every("e/A")[0].rivals) == 0
            assert sorted(known(laptop)["A"]) == ["from the desk", "from the laptop", "of both", "older", "settled"]
            # And either may take away what the other put, and make it again.
            call(laptop, "delete_entities", entityNames=["E", "D"])
            assert laptop.flush(30)
            assert {"E", "D"}.isdisjoint(known(desk))
            call(laptop, "create_entities", entities=[entity("E", "again")])
            assert laptop.flush(30)
            assert known(desk)["E"] == ["again"] == known(laptop)["E"]
    finally:
        hub.kill()


def test_two_writers_of_one_agent_and_two_agents_lose_nothing(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as ada, Store(tmp_path, "eve", hub=[], limits=LIMITS) as eve:
        call(ada, "create_entities", entities=[entity("A")])
        desks = [Desk(ada), Desk(ada)]  # as two processes: neither knows the other's lock
        numbers = itertools.count()

        def write(desk: Desk) -> None:
            for _ in range(15):
                call(desk, "add_observations", **adds("A", str(next(numbers))))

        threads = [threading.Thread(target=write, args=(desk,)) for desk in desks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(int, known(ada)["A"])) == list(range(30))

        seen = []

        def late(row: Row | None) -> dict[str, Any]:
            assert row is not None
            if not seen:  # another process writes between what this one reads and what it writes
                call(desks[1], "add_observations", **adds("A", "30"))
            seen.append(row.version)
            now = graph.known(row)
            now.entity.observations.append("31")
            return now.raw()

        desks[0].graph.shared.change({graph.key_of("A"): late})
        assert (len(seen), sorted(map(int, known(ada)["A"]))) == (2, list(range(32)))
        call(eve, "add_observations", **adds("A", "eve's"))
        assert len(known(ada)["A"]) == 33, "agents of one machine know each other's without a hub"
        call(ada, "delete_entities", entityNames=["A"])
        assert known(eve) == {}


def test_many_and_large_ones(tmp_path: Path) -> None:
    with Store(tmp_path, "ada", hub=[], limits=LIMITS) as store:
        names = [f"n{number}" for number in range(450)]
        call(store, "create_entities", entities=[entity(name, "x") for name in names])
        big = [entity(f"big{number}", "y" * 200_000) for number in range(5)]
        call(store, "create_entities", entities=big)
        assert list(known(store)) == [*names, *(each["name"] for each in big)]
        call(store, "delete_entities", entityNames=names)
        assert len(known(store)["big4"][0]) == 200_000


def run(*words: str) -> int:
    return main(words, standalone_mode=False)


def test_the_reference_servers_file_comes_in_and_goes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oracle = Reference()
    oracle.create_entities([entity("Ada", "likes ☕", kind="person"), entity("Tea")])
    oracle.relations = [{"from": "Ada", "to": "nowhere", "relationType": "went"}]  # older versions took such
    file, node = tmp_path / "memory.json", str(tmp_path / "node")
    torn = b'{"type":"entity","name":"half","enti\n[]\n{"type":"entity","name":7}\n{"type":"other"}\n'
    file.write_bytes(b"\xef\xbb\xbf" + oracle.lines() + b"\n" + torn)
    assert run("mcp", "--store", node, "--agent", "ada", "--import-memory", str(file), "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert told == {"entities": 2, "relations": 1, "observations": 0, "already": 0, "bad_lines": [5, 6, 7, 8]}
    assert run("mcp", "--store", node, "--agent", "ada", "--import-memory", str(file), "--json") == 3
    assert json.loads(capsys.readouterr().out)["already"] == 3
    assert run("mcp", "--store", node, "--agent", "eve", "--export-memory", str(tmp_path / "out.jsonl")) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == oracle.lines()
    # What another server has added since comes in beside what is here.
    oracle.add_observations([{"entityName": "Tea", "contents": ["is hot"]}])
    file.write_bytes(oracle.lines())
    assert run("mcp", "--store", node, "--import-memory", str(file), "-q") == 0
    capsys.readouterr()
    assert run("mcp", "--store", node, "--export-memory", "-") == 0
    assert capsys.readouterr().out.encode() == oracle.lines()
    file.write_bytes(torn)
    assert run("mcp", "--store", node, "--import-memory", str(file)) == 2
    assert "no line of the file is an entity" in capsys.readouterr().err
    assert run("mcp", "--port", "1") == 2
    assert "--port is for a server over HTTP" in capsys.readouterr().err
