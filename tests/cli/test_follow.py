"""`holdfast follow` and `holdfast sessions`: what a person sees of transcripts that are kept, told and given back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast import codec
from holdfast.cli.following import files, giving
from holdfast.cli.following.follower import Follower
from holdfast.cli.following.ledger import Head, Ledger
from holdfast.cli.transcripts import gemini, pi
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.errors import IntegrityError
from holdfast.node.store import Store
from tests.cli.conftest import Run

SESSION = "0b2f7c1e-5d3a-4c1b-9f57-3f1d2c4b5a69"
FORK = "7d9e1a20-1111-4c1b-9f57-3f1d2c4b5a69"
ROLLOUT = "rollout-2026-01-06T12-00-00-019b9a10-0000-7000-8000-000000000001.jsonl"
OLD_NS = 1_700_000_000_000_000_000
KEY = "sk-ant-api03-" + "a1B2c3D4" * 6


def claude(uuid: str, text: Any, session: str = SESSION, **more: Any) -> dict[str, Any]:
    """A line of Claude Code."""
    at = f"2026-01-06T12:00:{int(uuid[1:]) % 60:02}.000Z"
    message = {"role": "user", "content": text}
    return {"type": "user", "sessionId": session, "uuid": uuid, "timestamp": at, "message": message, **more}


def write(path: Path, *events: Any, old: bool = True) -> Path:
    """A file of these lines; text goes in as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (each if isinstance(each, str) else json.dumps(each) + "\n" for each in events)
    path.write_text("".join(lines))
    if old:
        os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tool of whoever runs the tests."""
    for tool in TOOLS.values():
        monkeypatch.delenv(tool.variable, raising=False)


@pytest.fixture
def project(home: Path) -> Path:
    """Where Claude Code keeps a project's sessions."""
    return home / ".claude" / "projects" / "-home-ada-shop"


def test_a_session_is_kept_told_found_and_given_back(hf: Run, home: Path, project: Path) -> None:
    picture = {"type": "image", "source": {"type": "base64", "data": "QUJD" * 200}}
    main = write(
        project / f"{SESSION}.jsonl",
        {"type": "file-history-snapshot", "messageId": "x"},
        claude("u1", "Why does the basket lose its last item?", cwd="/home/ada/shop"),
        claude("u2", [{"type": "text", "text": "Look"}, picture]),
        "{broken\n",
        "\n",
        claude("u3", "wool " * 20_000),
    )
    side = write(
        project / SESSION / "subagents" / "agent-a1.jsonl",
        claude("u9", "find the loop", isSidechain=True, agentId="a1"),
    )
    meta = write(side.with_name("agent-a1.meta.json"), '{"agentType": "Explore"}')
    older = write(project / "agent-b2.jsonl", claude("u8", "as older versions kept it", isSidechain=True))
    ended = hf("follow", "claude-code", "--once", "--json")
    assert ended.code == 3
    assert f"{main}:4: not JSON" in ended.err
    told = ended.json
    assert (told["files"], told["said"], told["bad"], told["sessions"]) == (4, 5, 1, 3)
    again = hf("follow", "claude-code", "--once", "--json")
    assert (again.code, again.err, again.json["lines"], again.json["said"]) == (0, "", 0, 0)

    (listed,) = (each for each in hf("sessions", "ls", "--json").json["sessions"] if "parent" not in each["metadata"])
    assert listed["metadata"]["title"] == "Why does the basket lose its last item?"
    assert listed["metadata"]["session"] == SESSION
    shown = hf("sessions", "show", SESSION[:8], "--json").json
    assert [each["metadata"]["line"] for each in shown["messages"]] == [2, 3, 6]
    assert "QUJD" not in json.dumps(shown), "a picture has no place in what is read"
    assert len(json.dumps(shown["messages"][2])) < 60_000
    with Store(home / ".local/share/holdfast", "me", hub=[]) as store:
        assert {found.collection for found in store.search("basket")} == {"sessions"}
        (spoken,) = (found.value for found in store.search("loop") if "content" in found.value)
        assert (spoken["role"], spoken["content"]) == ("user", "find the loop")

    assert hf("sessions", "export", SESSION).out == main.read_bytes()
    given = home / "elsewhere"
    assert hf("sessions", "export", SESSION, "--into", given, "--project", "/srv/my.shop").code == 0
    for path in (main, side, meta, older):
        there = given / "projects" / "-srv-my-shop" / path.relative_to(project)
        assert there.read_bytes() == path.read_bytes()
    listed = hf("follow", "--list", "--json").json["files"]
    assert {each["state"] for each in listed} == {"read"}
    assert next(each["why"] for each in listed if each["bad"])[0][0] == 4


def test_what_is_given_back_replaces_only_its_own_beginning(hf: Run, home: Path, project: Path) -> None:
    path = write(project / f"{SESSION}.jsonl", claude("u1", "one"), claude("u2", "two"))
    hf("follow", "claude-code", "--once")
    out = home / "out.jsonl"
    out.write_bytes(path.read_bytes()[:50])
    assert hf("sessions", "export", SESSION, "--out", out).code == 0
    assert out.read_bytes() == path.read_bytes()
    out.write_bytes(path.read_bytes() + b"more\n")
    assert "goes on behind" in hf("sessions", "export", SESSION, "--out", out).err
    assert out.read_bytes().endswith(b"more\n")
    out.write_bytes(b"something else\n")
    refused = hf("sessions", "export", SESSION, "--out", out)
    assert (refused.code, out.read_bytes()) == (6, b"something else\n")
    assert hf("sessions", "export", SESSION, "--out", out, "--force").code == 0
    assert out.read_bytes() == path.read_bytes()
    assert list(home.glob(".out.jsonl*")) == [], "nothing is left behind"
    before = path.read_bytes()
    write(path, claude("u7", "something else"))
    hf("follow", "claude-code", "--once")
    with Store(home / ".local/share/holdfast", "me", hub=[]) as store:
        (fid,) = Ledger(store).files()
        begun = store.history(f"head/{fid}", collection="transcripts")[-1].time
    assert hf("sessions", "export", SESSION).out == path.read_bytes()
    assert hf("sessions", "export", SESSION, "--at", f"{begun:.3f}").out == before
    assert hf("sessions", "export", SESSION, "--at", "2020-01-01").code == 5
    assert hf("sessions", "export", "nothing-of-the-kind").code == 5
    assert hf("follow", "no-such-tool", "--once").code == 2


def test_a_head_from_elsewhere_chooses_no_place(tmp_path: Path) -> None:
    for path in ("../x.jsonl", "/etc/x.jsonl", "projects/../../x.jsonl", "settings.json", "projects/p/..\\x.jsonl"):
        head = Head(tool="claude-code", root="", path=path, kind="lines", spans=[(1, 0)])
        with pytest.raises(IntegrityError):
            giving.target(head, tmp_path, None)


def test_a_fork_is_kept_whole_and_its_messages_are_told_once(hf: Run, home: Path, project: Path) -> None:
    first = [claude("u1", "begin"), claude("u2", "go on")]
    origin = write(project / f"{SESSION}.jsonl", *first, claude("u3", "the one way"))
    hf("follow", "claude-code", "--once")
    copied = [each | {"sessionId": FORK, "forkedFrom": {"sessionId": SESSION, "messageUuid": "u"}} for each in first]
    fork = write(project / f"{FORK}.jsonl", *copied, claude("u4", "the other way", FORK))
    told = hf("follow", "claude-code", "--once", "--json").json
    assert (told["said"], told["copied"]) == (1, 2)
    shown = hf("sessions", "show", FORK, "--json").json
    assert [each["content"] for each in shown["messages"]] == ["the other way"]
    assert SESSION in shown["session"]["metadata"]["continues"]
    assert f"goes on from session_claude-code.{SESSION}." in hf("sessions", "show", FORK).text
    assert shown["session"]["metadata"]["parent"] == SESSION
    for path in (origin, fork):
        assert hf("sessions", "export", path.stem).out == path.read_bytes()
    with Store(home / ".local/share/holdfast", "me", hub=[]) as store:
        assert len([each for each in store.search("begin") if each.key.rpartition("/")[0].endswith("msg")]) == 1


def test_what_was_deleted_stays_deleted(hf: Run, project: Path) -> None:
    path = write(project / f"{SESSION}.jsonl", claude("u1", "one"), claude("u2", "two"))
    hf("follow", "claude-code", "--once")
    shown = hf("sessions", "show", SESSION, "--json").json
    name = shown["session"]["id"]
    gone = f"{name}/msg/{shown['messages'][0]['id']}"
    assert hf("rm", gone, "-c", "sessions").code == 0
    write(path, claude("u0", "before"), claude("u1", "one"), claude("u2", "two"))
    assert hf("follow", "claude-code", "--once", "--json").json["anew"] == 1
    assert [each["content"] for each in hf("sessions", "show", SESSION, "--json").json["messages"]] == ["two", "before"]
    assert hf("rm", f"{name}/", "--prefix", "-c", "sessions").code == 0
    write(path, claude("u5", "after"))
    told = hf("follow", "claude-code", "--once", "--json").json
    assert (told["anew"], told["said"]) == (1, 0)
    assert hf("sessions", "export", SESSION).out == path.read_bytes()


def test_secrets_are_taken_out_of_what_is_kept_and_of_what_is_told(hf: Run, home: Path, project: Path) -> None:
    plain, secret = claude("u1", "nothing   here"), claude("u2", f"the key is {KEY}")
    path = write(project / f"{SESSION}.jsonl", plain, secret, f'{{"broken": "{KEY}\n')
    assert hf("follow", "claude-code", "--once", "--redact").code == 3
    kept = hf("sessions", "export", SESSION).out
    assert kept.splitlines()[0] == path.read_bytes().splitlines()[0], "a line without secrets is the same to the byte"
    assert "[redacted: API key]" in json.loads(kept.splitlines()[1])["message"]["content"]
    assert KEY.encode() not in kept
    assert KEY not in hf("sessions", "show", SESSION, "--json").text
    data = b"".join(each.read_bytes() for each in (home / ".local/share/holdfast").rglob("*") if each.is_file())
    assert KEY.encode() not in data
    assert hf("follow", "claude-code", "--once", "--redact", "--json").json["lines"] == 0
    write(path, plain, secret)
    assert hf("follow", "claude-code", "--once", "--redact", "--json").json["said"] == 0
    assert KEY.encode() not in hf("sessions", "export", SESSION).out


def test_a_line_too_long_to_be_looked_at_is_kept(hf: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("LOT_BYTES", 20_000), ("LINE_BYTES_MAX", 40_000), ("PIECE_BYTES", 7_000)):
        monkeypatch.setattr(files, name, size)
    path = write(project / f"{SESSION}.jsonl", claude("u1", "x" * 90_000), claude("u2", "short"))
    ended = hf("follow", "claude-code", "--once", "--json")
    assert ended.code == 3
    assert f"{path}:1: a line of 90," in ended.err
    assert ended.json["said"] == 1
    assert hf("sessions", "export", SESSION).out == path.read_bytes()
    assert hf("follow", "claude-code", "--once", "--json").json["lines"] == 0
    with path.open("a") as file:
        file.write("y" * 50_000)  # without an end
    os.utime(path, ns=(OLD_NS + 1, OLD_NS + 1))
    hf("follow", "claude-code", "--once")
    assert hf("sessions", "export", SESSION).out == path.read_bytes()
    with path.open("a") as file:
        file.write("z\n")
    hf("follow", "claude-code", "--once")
    assert hf("sessions", "export", SESSION).out == path.read_bytes()
    write(path.with_name(f"{FORK}.jsonl"), claude("u1", "x" * 90_000), claude("u2", "y" * 30_000))
    assert "not kept" in hf("follow", "claude-code", "--once", "--redact").err
    assert [len(each) < 100 for each in hf("sessions", "export", FORK).out.splitlines()] == [True, False]
    assert hf("follow", "claude-code", "--once", "--redact", "--json").json["lines"] == 0


def test_of_two_who_follow_at_once_each_line_is_read_by_one(home: Path, project: Path) -> None:
    path = write(project / f"{SESSION}.jsonl", claude("u1", "one"))
    with Store(home / "node", "me", hub=[]) as store:
        both = [Follower(store, TOOLS["claude-code"], home / ".claude", lambda *_: None) for _ in range(2)]
        for number in range(2, 12):
            for one in both if number % 3 else both[::-1]:
                one.walk()
                one.once()
                with path.open("a") as file:
                    file.write(json.dumps(claude(f"u{number}{one is both[0]:d}", f"{number}")) + "\n")
        for one in both:
            one.once()
        ledger = Ledger(store)
        (fid,) = ledger.files()
        head = ledger.head(fid)
        assert head is not None
        assert b"".join(ledger.content(fid, head[0])) == path.read_bytes()
        assert head[0].spans == [(1, 0)], "nobody wrote what somebody else had written"
        assert sum(one.tally.lines for one in both) == sum(one.tally.said for one in both) == head[0].lines == 21


def test_what_is_written_within_the_grain_of_a_clock_is_found(home: Path, project: Path) -> None:
    path = write(project / f"{SESSION}.jsonl", claude("u1", "one"))
    with Store(home / "node", "me", hub=[]) as store:
        for text in ("one", "two"):  # as long, at the same moment, and only the log remembers
            write(path, claude("u1", text))
            now = OLD_NS + 1_000_000_000
            one = Follower(store, TOOLS["claude-code"], home / ".claude", lambda *_: None, now_ns=lambda now=now: now)  # type: ignore[misc]
            one.walk()
            assert one.once()
        (fid,) = (ledger := Ledger(store)).files()
        head = ledger.head(fid)
        assert head is not None
        assert b"".join(ledger.content(fid, head[0])) == path.read_bytes()


def test_codex_may_archive_and_pack(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(home / "cx"))
    meta: dict[str, Any] = {"type": "session_meta", "timestamp": "2026-01-06T12:00:00.000Z"}
    meta |= {"payload": {"id": ROLLOUT[-42:-6], "cwd": "/src"}}
    meta["payload"]["source"] = {"subagent": {"thread_spawn": {"parent_thread_id": "t-0", "depth": 1}}}
    said: dict[str, Any] = {"type": "response_item", "timestamp": "2026-01-06T12:00:01.000Z"}
    said |= {"payload": {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "2+2?"}]}}
    path = write(home / "cx/sessions/2026/01/06" / ROLLOUT, meta, said)
    data = path.read_bytes()
    assert hf("follow", "codex", "--once", "--json").json["said"] == 1
    archived = home / "cx/archived_sessions" / f"{ROLLOUT}.zst"
    archived.parent.mkdir()
    archived.write_bytes(b"".join(codec.squeezed([data])))
    path.unlink()
    told = hf("follow", "codex", "--once", "--json").json
    assert (told["files"], told["lines"], told["anew"]) == (0, 0, 0)
    more = json.dumps(said | {"timestamp": "2026-01-06T12:00:02.000Z"}).encode() + b"\n"
    archived.write_bytes(b"".join(codec.squeezed([data + more])))
    assert hf("follow", "codex", "--once", "--json").json["said"] == 1
    assert hf("sessions", "export", ROLLOUT[-42:-6]).out == data + more
    shown = hf("sessions", "show", ROLLOUT[-42:-6], "--json").json
    assert shown["session"]["metadata"]["parent"] == "t-0"
    shown = shown["messages"]
    assert [(each["role"], each["metadata"].get("role")) for each in shown] == [("system", "developer")] * 2
    archived.write_bytes(archived.read_bytes()[:-9])
    damaged = hf("follow", "codex", "--once")
    assert damaged.code == 3
    assert "damaged zstd" in damaged.err
    assert hf("sessions", "export", ROLLOUT[-42:-6]).out == data + more


def test_other_tools_are_read_as_they_write(hf: Run, home: Path) -> None:
    at = "2026-01-06T12:00:00.000Z"
    spoken = {"id": "m2", "type": "gemini", "timestamp": at, "content": "Four."}
    calls = [{"id": "c", "name": "sh", "args": {}, "status": "success", "timestamp": at}]
    talk = [
        {"sessionId": "g-1", "projectHash": "p", "startTime": at, "lastUpdated": at, "kind": "main"},
        {"id": "m1", "type": "user", "timestamp": at, "content": [{"text": "2+2?"}]},
        spoken,
        spoken | {"toolCalls": calls},
        {"$set": {"summary": "Adding", "lastUpdated": at}},
        {"$rewindTo": "m1"},
        {"$set": {"messages": [{"id": "m3", "type": "info", "timestamp": at, "content": "Rewound"}]}},
        {"id": "m4", "type": "user"},
    ]
    path = write(home / ".gemini/tmp/p/chats/session-2026-01-06T12-00-g1.jsonl", *talk)
    assert hf("follow", "gemini-cli", "--once").code == 3
    assert hf("sessions", "export", "g-1").out == path.read_bytes()
    shown = hf("sessions", "show", "g-1", "--json").json["messages"]
    assert sorted((each["role"], str(each["content"])[:9]) for each in shown) == [
        ("assistant", "['Four.',"),
        ("system", "Adding"),
        ("system", "Rewound"),
        ("user", "2+2?"),
    ]
    assert [type(each).__name__ for each in gemini.read(path.read_bytes(), "x")].count("Other") == 2
    talk = [
        {"type": "session", "version": 3, "id": "p-1234567", "timestamp": at, "cwd": "/src"},
        {"type": "model_change", "id": "e1", "timestamp": at, "modelId": "m"},
        {"type": "message", "id": "e2", "timestamp": at, "message": {"role": "user", "content": "2+2?"}},
        {"type": "message", "id": "e3", "message": {"role": "bashExecution", "command": "ls", "output": "a"}},
        {"type": "compaction", "id": "e4", "timestamp": at, "summary": "Added"},
        {"type": "message", "id": "e5", "message": {"content": "nobody"}},
    ]
    path = write(home / ".pi/agent/sessions/--src--/2026_p-1234567.jsonl", *talk)
    assert hf("follow", "--all", "--once").code == 3
    assert hf("sessions", "export", "p-1234567").out == path.read_bytes()
    kinds = [each["metadata"].get("kind") for each in hf("sessions", "show", "p-1234567", "--json").json["messages"]]
    assert kinds == [None, "tool_result", "summary"]
    assert [type(each).__name__ for each in pi.read(path.read_bytes(), "x")][-1] == "Bad"
    assert hf("sessions", "export", "p-1234567", "--into", home / "pi", "--project", "/a/b").code == 0
    assert (home / "pi/sessions/--a-b--/2026_p-1234567.jsonl").read_bytes() == path.read_bytes()
    assert hf("sessions", "export", "g-1", "--into", home / "g", "--project", "/a/b").code == 2
    assert hf("import", path).code == 3


def test_a_line_with_more_messages_than_a_commit_holds(hf: Run, home: Path) -> None:
    at = "2026-01-06T12:00:00.000Z"
    many = [
        {"id": f"m{number}", "type": "user", "timestamp": at, "content": f"word{number}"} for number in range(1_100)
    ]
    first = {"sessionId": "g-22222", "projectHash": "p"}
    path = write(home / ".gemini/tmp/p/chats/session-g2.jsonl", first, *many[:5], {"$set": {"messages": many}})
    assert hf("follow", "gemini-cli", "--once", "--json").json["said"] == 1_100
    assert hf("follow", "gemini-cli", "--once", "--json").json["said"] == 0
    assert len(hf("sessions", "show", "g-22222", "--limit", "2000", "--json").json["messages"]) == 1_100
    assert hf("sessions", "export", "g-22222").out == path.read_bytes()


def test_what_cannot_be_read_is_named_and_others_go_on(hf: Run, project: Path) -> None:
    write(project / f"{SESSION}.jsonl", claude("u1", "one"))
    (project / "round.jsonl").symlink_to("round.jsonl")
    (project / "again").symlink_to(project.parent)
    os.mkfifo(project / "pipe.jsonl")
    ended = hf("follow", "claude-code", "--once", "--json")
    assert ended.code == 3
    assert "round.jsonl: " in ended.err
    assert "pipe.jsonl: no file" in ended.err
    assert (ended.json["said"], ended.json["files"], ended.json["failed"]) == (1, 1, 2)


def test_a_tools_folder_may_be_given_in_any_way(hf: Run, home: Path, project: Path) -> None:
    (home / ".claude").mkdir()
    write(home / ".claude" / "transcripts" / "ses_1.jsonl", claude("u1", "no session"))
    assert hf("follow", "claude-code", "--once", "--json").json["files"] == 0, "no project is there yet"
    write(project / f"{SESSION}.jsonl", claude("u1", "one"))
    assert hf("follow", "claude-code", home / ".claude" / "projects", "--once", "--json").json["files"] == 1
    assert hf("follow", "claude-code", "--once", "--json").json["files"] == 0
    project.parent.rename(home / "copied")
    told = hf("follow", "claude-code", home / "copied", "--once", "--json").json
    assert (told["files"], told["lines"]) == (0, 0), "a file is known by its path in the tool's folder"
    assert hf("follow", "claude-code", home / "nowhere", "--once").code == 2
    assert hf("follow", "codex", "--once").code == 2
    assert hf("follow").code == 2
