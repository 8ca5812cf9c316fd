"""`holdfast follow opencode`: sessions in a database that the tool has open, kept, told, and taken back by the tool."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.cli.following import opencode, rows
from holdfast.cli.following.ledger import Ledger
from holdfast.cli.following.stored import StoredFollower
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.node.store import Store
from holdfast.sqlite import foreign
from tests.cli.conftest import Run
from tests.opencodes import START_MS, OpenCode, write

LATER_NS = (START_MS + 10**10) * 1_000_000
KEY = "sk-ant-api03-" + "a1B2c3D4" * 6


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool of whoever runs the tests."""
    for name in ("XDG_DATA_HOME", "OPENCODE_DB"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tool(home: Path) -> OpenCode:
    """An opencode with a session and one that it began."""
    made = OpenCode(home / ".local/share/opencode")
    made.session("ses_main", "Basket")
    made.user("ses_main", "msg_a", "Why does the basket lose its last item?")
    made.assistant("ses_main", "msg_b", "It is cut off by one.")
    made.session("ses_side", "New session - 2026-01-06T12:00:00.000Z", parent="ses_main")
    made.user("ses_side", "msg_c", "find the loop")
    return made


def exported(hf: Run, session: str, *more: str) -> Any:
    """What `sessions export` gives of a session."""
    ended = hf("sessions", "export", session, *more)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but SQLite's index of a WAL, which every reader of one shares."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}


class Following:
    """A follower of one tool, with a clock of its own, that counts what it reads."""

    def __init__(self, store: Store, tool: OpenCode) -> None:
        self.now_ns = LATER_NS
        self.told: list[tuple[str, str]] = []
        self._tool = tool
        self.ledger = Ledger(store)
        self.follower = self.new()

    def new(self) -> StoredFollower:
        """One that knows nothing but the log."""
        known, home = TOOLS["opencode"], self._tool.home
        tell = lambda place, why: self.told.append((place, why))  # noqa: E731
        return StoredFollower(self.ledger.store, known, home, tell, now_ns=lambda: self.now_ns)

    def run(self, follower: StoredFollower | None = None) -> bool:
        """One look at everything."""
        chosen = follower or self.follower
        chosen.walk()
        return chosen.once()

    def rest(self) -> None:
        """Lets two minutes go by since the tool wrote last."""
        beside = self._tool.path.with_name(f"{self._tool.path.name}-wal")
        self.now_ns = max(each.stat().st_mtime_ns for each in (self._tool.path, beside)) + 120_000_000_000

    def export(self, session: str) -> Any:
        """What the log gives back of a session."""
        fid = self.ledger.fid("opencode", session)
        head = self.ledger.head(fid)
        assert head is not None
        return json.loads(b"".join(rows.export(self.ledger, fid, head[0])))

    def said(self) -> list[Any]:
        """The values of all messages that were told, in the order of the first writing."""
        store = self.ledger.store
        keys = [key for key in store.keys(collection="sessions", limit=10_000) if "/msg/" in key]
        found = [store.history(key, collection="sessions") for key in keys]
        return [each[0].value for each in sorted(found, key=lambda each: each[-1].seq)]


@pytest.fixture
def following(home: Path, tool: OpenCode) -> Any:
    """A follower in this process."""
    with Store(home / "node", "me", hub=[]) as store:
        yield Following(store, tool)


def test_sessions_are_kept_told_found_and_taken_back_by_the_tool(hf: Run, home: Path, tool: OpenCode) -> None:
    tool._insert("todo", {"session_id": "ses_main", "content": "mend", "status": "pending", "priority": "high",
                          "position": 0, "time_created": 1, "time_updated": 1})  # fmt: skip
    before = files_in(tool.home)
    told = hf("follow", "opencode", "--once", "--json").json
    assert (told["files"], told["lines"], told["said"], told["sessions"], told["bad"]) == (2, 3, 3, 2, 0)
    again = hf("follow", "--all", "--once", "--json").json
    assert (again["files"], again["lines"], again["said"]) == (0, 0, 0)
    assert files_in(tool.home) == before, "a tool's own files are only read"

    listed = {each["metadata"]["session"]: each for each in hf("sessions", "ls", "--json").json["sessions"]}
    assert listed["ses_main"]["metadata"]["title"] == "Basket"
    assert listed["ses_main"]["metadata"]["folder"] == "/src/shop"
    assert listed["ses_side"]["metadata"]["title"] == "find the loop", "the tool has not thought of a title yet"
    assert listed["ses_side"]["metadata"]["parent"] == "ses_main"
    assert [each["state"] for each in hf("follow", "--list", "--json").json["files"]] == ["read", "read"]
    first, second = hf("sessions", "show", "ses_main", "--json").json["messages"]
    assert (first["role"], first["content"]) == ("user", "Why does the basket lose its last item?")
    assert first["timestamp"].startswith("2026-01-06T")
    assert (second["role"], [each["type"] for each in second["content"]]) == (
        "assistant",
        ["reasoning", "tool", "text"],
    )
    assert second["content"][1] == {
        "type": "tool",
        "tool": "bash",
        "input": {"command": "ls"},
        "output": "out of msg_b",
    }
    assert "out of msg_b" in hf("search", "out of msg_b").text

    for session in ("ses_main", "ses_side"):
        assert exported(hf, session) == tool.export(session)
    document = home / "session.json"
    assert hf("sessions", "export", "ses_main", "--out", document).code == 0
    other = OpenCode(home / "other")
    other.take(json.loads(document.read_bytes()))
    assert other.export("ses_main")["messages"] == tool.export("ses_main")["messages"]
    assert hf("follow", "opencode", other.home, "--once", "--json").json["said"] == 0, "the same messages"
    refused = hf("sessions", "export", "ses_main", "--into", home / "x")
    assert (refused.code, "opencode import FILE" in refused.err) == (2, True)


def test_what_is_written_in_its_place_and_taken_away(following: Following, tool: OpenCode) -> None:
    following.now_ns = (tool.now + 1_000) * 1_000_000
    tool.assistant("ses_main", "msg_d", "So", done=False)
    following.run()
    assert [each["info"]["id"] for each in following.export("ses_main")["messages"]] == ["msg_a", "msg_b"]
    before = following.ledger.store._log.corpus.last()
    following.run()
    assert following.ledger.store._log.corpus.last() == before, "nothing is written while it waits"
    tool.assistant("ses_main", "msg_d", "So it is.")  # as long as it likes, in the same rows
    following.run()
    assert following.export("ses_main") == tool.export("ses_main")
    assert following.said()[-1]["content"][-1]["text"] == "So it is."
    fid = following.ledger.fid("opencode", "ses_main")
    began = following.ledger.store.history(f"head/{fid}", collection="transcripts")[0].time
    tool.part("ses_main", "msg_d", "prt_msg_d_3", {"type": "text", "text": "So it was."})
    tool.db.execute("DELETE FROM message WHERE id = 'msg_b'")
    following.run()
    assert following.export("ses_main") == tool.export("ses_main")
    said = [each["content"][-1]["text"] for each in following.said() if isinstance(each["content"], list)]
    assert said == ["It is cut off by one.", "So it was."], (
        "what was said stays said, and what it became is its version"
    )
    then = following.ledger.head(fid, began)
    assert then is not None
    past = json.loads(b"".join(rows.export(following.ledger, fid, then[0], began)))
    assert [each["info"]["id"] for each in past["messages"]] == ["msg_a", "msg_b", "msg_d"]

    tool.assistant("ses_main", "msg_e", "Abandoned", done=False)
    following.run()
    following.now_ns = (tool.now + 61_000) * 1_000_000  # its tool was killed: nobody is through with it any more
    following.run()
    assert following.export("ses_main") == tool.export("ses_main")
    tool.db.execute("DELETE FROM session WHERE id = 'ses_main'")
    following.run()
    head = following.ledger.head(fid)
    assert head is not None
    assert head[0].gone
    assert len(following.export("ses_main")["messages"]) == 3
    assert following.told == []


def test_version_2_and_the_way_there(following: Following, tool: OpenCode, home: Path) -> None:
    following.run()
    tool.upgrade()
    tool.session_2("ses_main")
    asked = {"time": {"created": START_MS}, "text": "Why does the basket lose its last item?", "files": []}
    tool.message_2("ses_main", "msg_a", "user", asked)
    call = {"type": "tool", "id": "c", "name": "shell", "executed": False, "time": {"created": 1}}
    call["state"] = {"status": "completed", "input": {"command": "ls"}, "content": [{"type": "text", "text": "a b"}]}
    answer: dict[str, Any] = {"time": {"created": START_MS}, "agent": "build", "model": {"id": "m"}}
    answer["content"] = [{"type": "reasoning", "text": "Hm."}, call]
    tool.message_2("ses_main", "msg_f", "assistant", answer)
    tool.message_2("ses_main", "msg_g", "shell", {"time": {"created": 2}, "command": "ls", "status": "running"})
    following.now_ns = (tool.now + 1_000) * 1_000_000
    following.run()
    assert following.export("ses_main") == tool.export_2("ses_main")
    assert len(following.export("ses_main")["messages"]) == 1
    answer["content"].append({"type": "text", "text": "Done."})
    tool.message_2("ses_main", "msg_f", "assistant", answer | {"time": {"created": START_MS, "completed": 3}})
    tool.message_2("ses_main", "msg_g", "shell", {"time": {"created": 2}, "command": "ls", "status": "exited",
                                                  "output": {"output": "x", "cursor": 1, "size": 1}})  # fmt: skip
    tool.message_2("ses_main", "msg_h", "idle", {"time": {"created": 4}, "outcome": "succeeded"})
    following.run()
    assert following.export("ses_main") == tool.export_2("ses_main")
    told = [each for each in following.said() if each["content"] != "find the loop"]
    assert [each["role"] for each in told] == ["user", "assistant", "assistant", "user"], "msg_a is the same message"
    assert [each["type"] for each in told[2]["content"]] == ["reasoning", "tool", "text"]
    assert told[2]["content"][1]["output"] == ["a b"]
    assert told[3]["content"] == [{"type": "shell", "command": "ls", "output": "x"}]
    other = OpenCode(home / "other")
    other.upgrade()
    other.take_2(following.export("ses_main"))
    assert other.export_2("ses_main")["messages"] == tool.export_2("ses_main")["messages"]
    assert following.export("ses_side") == tool.export("ses_side"), "what was not moved stays as it is"
    tool.db.execute("DELETE FROM session_v2")
    following.run()
    assert following.export("ses_main")["messages"][-1]["type"] == "idle", "the old tables do not come back"


def test_files_of_before_are_the_same_sessions(following: Following, tool: OpenCode) -> None:
    for session in ("ses_main", "ses_side"):
        tool.to_files(session)
    aside = tool.path.with_name("aside")
    tool.close()
    tool.path.rename(aside)
    assert following.run()
    document = following.export("ses_main")
    count = len(following.said())
    write(tool.home / "storage/part/msg_a/prt_msg_a_1.json", document["messages"][0]["parts"][0] | {"text": "Why?"})
    (tool.home / "storage/part/msg_b/prt_msg_b_3.json").unlink()
    following.now_ns += 61_000_000_000
    following.run()
    assert following.said()[0]["content"] == "Why?"
    assert len(following.export("ses_main")["messages"][1]["parts"]) == 3
    aside.rename(tool.path)  # it took its files over, as they were before
    after = OpenCode(tool.home)
    following.run()
    assert following.export("ses_main") == after.export("ses_main")
    assert following.export("ses_main")["messages"] == document["messages"]
    assert len(following.said()) == count, "the same messages"
    assert following.told == []


def test_a_restart_reads_what_is_new(following: Following, tool: OpenCode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in looks at the database, and in messages that were read out of it."""
    looks: list[str] = []
    read: list[str] = []
    usual, bodies = foreign.read, opencode._messages_1

    def looking(path: str, job: Callable[[Any], Any]) -> Any:
        looks.append(path)
        return usual(path, job)

    def reading(found: Any, session: str, items: Any) -> Any:
        read.extend(each.id for each in items)
        return bodies(found, session, items)

    monkeypatch.setattr(foreign, "read", looking)
    monkeypatch.setattr(opencode, "_messages_1", reading)
    for number in range(30):
        tool.session(f"ses_{number}")
        tool.user(f"ses_{number}", f"msg_{number}", "one of many")
    following.now_ns = tool.now * 1_000_000
    following.run()
    assert len(read) == len(set(read)) == 33
    del read[:]
    tool.user("ses_7", "msg_new", "one more")
    following.run()
    assert read == ["msg_new"], "of a session at work is read what differs"
    following.rest()
    following.run()
    del looks[:], read[:]
    following.run()
    assert looks == [], "nothing was written: sizes and times tell"
    following.run(following.new())
    assert (len(looks), read) == (1, []), "and the log remembers them: which sessions there are is all that is asked"
    del looks[:]
    tool.user("ses_8", "msg_last", "one more")
    following.run(following.new())
    assert sorted(read) == ["msg_8", "msg_last"], "a new process reads the session that changed"
    assert len(looks) == 1 + 32 + 1, "and of the others their shapes"
    assert following.export("ses_8") == tool.export("ses_8")


def test_told_to_end_it_ends_between_two_commits_and_goes_on_there(following: Following, tool: OpenCode) -> None:
    tool.db.execute("BEGIN")
    for number in range(450):
        tool.user("ses_main", f"msg_z{number:03}", "one of many")
    tool.db.execute("COMMIT")
    following.now_ns = tool.now * 1_000_000
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    following.follower.walk()
    assert following.follower.once(stop)
    assert len(following.said()) == 400
    assert following.run()
    assert following.export("ses_main") == tool.export("ses_main")
    assert len(following.said()) == 453


def test_without_a_wal_nothing_is_laid_beside_the_file(hf: Run, tool: OpenCode, home: Path) -> None:
    document = tool.export("ses_main")
    tool.close()
    before = {path.name for path in tool.home.iterdir()}
    assert before == {"opencode.db"}
    os.chmod(tool.home, 0o500)
    assert hf("follow", "opencode", "--once", "--json").json["said"] == 3
    os.chmod(tool.home, 0o700)
    assert {path.name for path in tool.home.iterdir()} == before
    assert exported(hf, "ses_main") == document


def test_what_cannot_be_read_is_named_and_others_go_on(hf: Run, tool: OpenCode) -> None:
    (tool.home / "opencode-dev.db").write_bytes(b"no database at all" * 100)
    apsw.Connection(str(tool.home / "opencode-other.db")).execute("CREATE TABLE session_of_mine(id)")
    tool.session("ses_odd")
    tool.user("ses_odd", "msg_x", "well")
    tool.db.execute("UPDATE message SET data = '{broken' WHERE id = 'msg_x'")
    tool.user("ses_odd", "msg_y", "half a letter: ")
    tool.db.execute('UPDATE part SET data = \'{"type": "text", "text": "half \\ud83d"}\' WHERE message_id = \'msg_y\'')
    tool.user("ses_odd", "msg_z", "whole")
    ended = hf("follow", "opencode", "--once", "--json")
    assert ended.code == 3
    assert "opencode-dev.db: " in ended.err
    assert "no SQLite database" in ended.err
    assert "opencode-other.db has no sessions of opencode in it" in ended.err
    assert "opencode.db:ses_odd:1: msg_x: " in ended.err
    assert (ended.json["said"], ended.json["failed"], ended.json["bad"]) == (4, 2, 2)
    assert [each["info"]["id"] for each in exported(hf, "ses_odd")["messages"]] == ["msg_y", "msg_z"]
    assert exported(hf, "ses_odd")["messages"][0]["parts"][0]["text"] == "half \ud83d"
    quiet = hf("follow", "opencode", "--once", "--json")
    assert (quiet.json["bad"], quiet.json["lines"]) == (0, 0)
    assert hf("follow", "opencode", tool.home / "nowhere", "--once").code == 2


def test_other_channels_and_a_database_that_is_named(
    hf: Run, tool: OpenCode, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = OpenCode(tool.home, "opencode-beta.db")
    side.session("ses_beta")
    side.user("ses_beta", "msg_beta", "from the other channel")
    named = OpenCode(home / "far", "mine.db")
    named.session("ses_named")
    named.user("ses_named", "msg_named", "from the one that is named")
    monkeypatch.setenv("OPENCODE_DB", str(named.path))
    assert hf("follow", "opencode", "--once", "--json").json["said"] == 5
    for session, of in (("ses_beta", side), ("ses_named", named), ("ses_main", tool)):
        assert exported(hf, session) == of.export(session)


def test_secrets_are_taken_out_of_what_is_kept_and_of_what_is_told(hf: Run, home: Path, tool: OpenCode) -> None:
    tool.user("ses_main", "msg_s", f"the key is {KEY}")
    assert hf("follow", "opencode", "--once", "--redact").code == 0
    kept = hf("sessions", "export", "ses_main").out
    assert KEY.encode() not in kept
    assert json.loads(kept)["messages"][:2] == tool.export("ses_main")["messages"][:2]
    assert "[redacted: API key]" in json.loads(kept)["messages"][2]["parts"][0]["text"]
    data = b"".join(each.read_bytes() for each in (home / ".local/share/holdfast").rglob("*") if each.is_file())
    assert KEY.encode() not in data
    assert hf("follow", "opencode", "--once", "--redact", "--json").json["lines"] == 0


def test_two_followers_against_a_tool_that_does_everything(following: Following, tool: OpenCode) -> None:
    """Whatever it does, and whoever of them is forgotten: at rest the log holds what the tool would export."""
    luck = random.Random(9)
    followers = [following.follower, following.new()]
    sessions, messages = ["ses_main", "ses_side"], {"msg_a": "ses_main", "msg_b": "ses_main"}

    def session() -> None:
        sessions.append(tool.session(f"ses_{len(sessions)}"))

    def begin() -> None:
        id = f"msg_{tool.now}"
        messages[id] = luck.choice(sessions)
        tool.assistant(messages[id], id, "x" * luck.randrange(3_000), done=luck.random() < 0.7)

    def change() -> None:
        id = luck.choice(sorted(messages))
        tool.part(messages[id], id, f"prt_{id}_{luck.randrange(5)}", {"type": "text", "text": f"now {tool.now}"})

    def drop() -> None:
        id = luck.choice(sorted(messages))
        if len(messages) > 2:
            tool.db.execute("DELETE FROM message WHERE id = ?", (id,))
            del messages[id]

    def checkpoint() -> None:
        tool.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def look() -> None:
        following.now_ns = max(following.now_ns, tool.now * 1_000_000) + luck.choice((0, 10**9, 2 * 10**10))
        if luck.random() < 0.2:
            followers[luck.randrange(2)] = following.new()
        following.run(luck.choice(followers))

    for _ in range(120):
        luck.choices((session, begin, change, drop, checkpoint, look), weights=(1, 4, 4, 2, 1, 8))[0]()
    following.rest()
    for follower in followers:
        following.run(follower)
    for each in sessions:
        assert following.export(each) == tool.export(each)
    assert following.told == []
    assert not following.run(following.new())
