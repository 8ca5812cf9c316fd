"""Import and export: nothing twice, nothing lost, a bad line costs one line, what is there stays as it is."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast import Store
from holdfast.collections import sessions
from tests.cli.conftest import Run
from tests.cli.test_shell import on_a_terminal
from tests.cli.test_transcripts import CHAT, CLAUDE, CODEX, SHARED, lines


@pytest.fixture
def folder(home: Path) -> Path:
    """Conversations of three programs, and a file that is none."""
    root = home / "transcripts"
    for name, data in {
        "chats/one.json": json.dumps(CHAT).encode(),
        "chats/more/one.json": json.dumps(CHAT).encode(),
        "claude/s1.jsonl": lines(CLAUDE),
        "codex/rollout-1.jsonl": lines(CODEX),
        "settings.json": b'{"theme": "dark"}',
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


EVERY = 2 * len(CHAT) + 4 + 5


def test_a_folder_is_imported_once(hf: Run, folder: Path) -> None:
    first = hf("import", folder, "--json")
    assert first.code == 0
    assert first.json["new"] == EVERY
    assert first.json["threads"] == 4
    assert (first.json["files"], first.json["skipped"], first.json["already"]) == (4, 1, 0)
    second = hf("import", folder, "--json").json
    assert (second["new"], second["already"]) == (0, EVERY)
    assert hf("ls", "--agents", "--json").json["agents"][0]["records"] == EVERY


def test_what_was_said_is_read_back_in_order(hf: Run, folder: Path) -> None:
    hf("import", folder)
    found = hf("inbox", "--thread", "chats/one", "--json").json["messages"]
    assert [{"role": m["role"], "content": m["body"], **m["extra"].get("rest", {})} for m in found] == CHAT
    found = hf("inbox", "--thread", "s1", "--json").json["messages"]
    assert [m["kind"] for m in found] == ["summary", "message", "message", "message"]
    assert found[1]["extra"]["said_at"] == "2026-01-06T12:00:00Z"


def test_a_conversation_that_has_grown_gives_what_is_new(hf: Run, home: Path) -> None:
    (home / "s.jsonl").write_bytes(lines(CLAUDE[:3]))
    assert hf("import", "s.jsonl", "--json").json["new"] == 2
    (home / "s.jsonl").write_bytes(lines(CLAUDE))
    told = hf("import", "s.jsonl", "--json").json
    assert (told["new"], told["already"]) == (2, 2)


def test_a_bad_line_is_named_and_the_rest_is_imported(hf: Run, home: Path) -> None:
    (home / "s.jsonl").write_bytes(lines(CLAUDE[:3]) + b"{broken\n" + lines(CLAUDE[3:]))
    result = hf("import", "s.jsonl")
    assert result.code == 3
    assert "s.jsonl:4: not JSON" in result.err
    assert "imported 4 records" in result.text
    assert hf("import", "s.jsonl", "--json").json["new"] == 0


def test_what_was_deleted_stays_deleted(hf: Run, home: Path) -> None:
    (home / "c.json").write_text(json.dumps(CHAT))
    hf("import", "c.json")
    (first, *_) = hf("ls", "-c", "messages", "--names").text.splitlines()
    assert hf("rm", first, "-c", "messages").code == 0
    assert hf("import", "c.json", "--json").json["new"] == 0
    assert hf("get", first, "-c", "messages").code == 5


@pytest.mark.parametrize("name", ["none.json", "other.json", "empty"])
def test_what_is_no_conversation_is_refused_by_name(hf: Run, home: Path, name: str) -> None:
    (home / "other.json").write_text('{"theme": "dark"}')
    (home / "empty").mkdir()
    result = hf("import", name)
    assert result.code == 2
    assert name in result.err


def test_a_dry_run_writes_nothing(hf: Run, folder: Path) -> None:
    assert hf("import", folder, "--dry-run", "--json").json["new"] == EVERY
    assert hf("ls", "-c", "messages", "--json").json["keys"] == []


def test_a_large_message_is_imported_too(hf: Run, home: Path) -> None:
    many = [{"role": "user", "content": f"{number}" * 40_000} for number in range(40)]
    many.append({"role": "user", "content": "x" * (3 << 20)})
    (home / "c.json").write_text(json.dumps(many))
    assert hf("import", "c.json", "--json").json["new"] == 41
    found = hf("inbox", "--all", "--limit", "1", "--json").json["messages"][0]
    assert found["body"] == "x" * (3 << 20)


def test_a_terminal_sees_how_far_it_is(hf: Run, folder: Path) -> None:
    shown = on_a_terminal(["import", str(folder)])
    assert "importing █".encode() in shown
    assert b"importing" not in on_a_terminal(["import", str(folder), "--quiet"])
    assert hf("import", folder).err.count("importing") == 0


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared conversations")
def test_the_shared_conversations_are_imported_once_and_whole(hf: Run) -> None:
    assert hf("import", SHARED, "--json").json["new"] == 5308
    assert hf("import", SHARED, "--json").json["already"] == 5308
    found = hf("inbox", "--all", "--limit", "9999", "--json").json["messages"]
    originals = [message for each in json.loads(SHARED.read_bytes()) for message in each["traj"]]
    assert [{"role": m["role"], "content": m["body"], **m["extra"].get("rest", {})} for m in found] == originals


def fill(hf: Run, home: Path) -> None:
    """A store with everything an export must carry."""
    (home / "bytes").write_bytes(bytes(range(256)))
    hf("put", "k", "1")
    hf("put", "k", '"two"')
    hf("rm", "k", "--reason", "done")
    hf("put", "k", '{"three": 3.0}')
    hf("put", "b", "@bytes", "--bytes")
    hf("put", "large", "y" * 200_000, "--text")
    hf("put", "tmp/1", "1")
    hf("rm", "tmp/", "--prefix")
    hf("put", "tmp/1", "2")
    hf("put", "k", "elsewhere", "-c", "other")
    hf("put", "k", "another's", "--agent", "other")
    hf("send", "people", "hello", "--id", "m1", "--priority", "hot", "--task", "7")


def contents(text: str) -> list[dict[str, Any]]:
    """An export without what a new log must make anew."""
    made = ("seq", "time", "etag")
    return [{k: v for k, v in json.loads(line).items() if k not in made} for line in text.splitlines()[1:]]


def test_an_export_comes_back_whole_and_once(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(hf, home)
    exported = hf("export", "--out", "all.jsonl")
    assert (exported.code, exported.out) == (0, b"")
    monkeypatch.setenv("HOLDFAST_STORE", str(home / "second"))
    hf("init", "--agent", "me")
    assert hf("import", "all.jsonl", "--json").json["new"] == 12
    for _ in range(2):
        assert contents(hf("export").text) == contents((home / "all.jsonl").read_text())
        told = hf("import", "all.jsonl", "--json").json
        assert (told["new"], told["already"], told["bad"]) == (0, 12, 0)
    assert hf("get", "b").out == bytes(range(256))
    assert hf("get", "k", "--agent", "other").text == "another's\n"
    assert hf("inbox", "--json").json["messages"][0]["id"] == "m1"


def test_an_export_narrows_to_an_agent_and_a_collection(hf: Run, home: Path) -> None:
    fill(hf, home)
    head, *rest = map(json.loads, hf("export", "--agent", "other").text.splitlines())
    assert (head["agents"], head["format"]) == (["other"], 1)
    assert ([each.get("value") for each in rest], rest[-1]) == (["another's", None], {"holdfast": "end", "versions": 1})
    _, only, _ = hf("export", "-c", "other").text.splitlines()
    assert json.loads(only)["value"] == "elsewhere"
    assert hf("export", "--agent", "stranger").code == 5


def test_bytes_are_told_from_text(hf: Run, home: Path) -> None:
    fill(hf, home)
    found = {(e["key"], e["as"]): e["value"] for e in contents(hf("export").text)[:-1]}
    assert base64.b64decode(found["b", "bytes"]) == bytes(range(256))
    assert found["large", "text"] == "y" * 200_000


def test_a_key_with_another_history_is_left_as_it_is(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(hf, home)
    hf("export", "--out", "all.jsonl")
    monkeypatch.setenv("HOLDFAST_STORE", str(home / "second"))
    hf("init", "--agent", "me")
    hf("put", "k", "mine")
    result = hf("import", "all.jsonl", "--json")
    assert result.code == 3
    assert "state/k has another v1 here: left as it is" in result.err
    assert (result.json["conflicts"], result.json["new"]) == (1, 8)
    assert hf("get", "k").text == "mine\n"


def test_an_interrupted_import_goes_on_where_it_was(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(hf, home)
    hf("export", "--out", "all.jsonl")
    whole = (home / "all.jsonl").read_bytes()
    (home / "cut.jsonl").write_bytes(whole[: whole.index(b"tmp/")])
    monkeypatch.setenv("HOLDFAST_STORE", str(home / "second"))
    hf("init")
    cut = hf("import", "cut.jsonl", "--json")
    assert cut.code == 3
    assert "the export has no end: it was cut off" in cut.err
    told = hf("import", "all.jsonl", "--json").json
    assert (told["new"], told["already"]) == (12 - cut.json["new"], cut.json["new"])
    assert contents(hf("export").text) == contents(whole.decode())


def test_lines_that_are_no_versions_are_named(hf: Run, home: Path) -> None:
    fill(hf, home)
    text = hf("export").text.splitlines()
    (home / "bad.jsonl").write_text("\n".join([text[0], '{"agent": "me"}', *text[1:]]))
    result = hf("import", "bad.jsonl", "--json")
    assert result.code == 3
    assert "bad.jsonl:2: not a version" in result.err
    assert (result.json["new"], result.json["already"]) == (0, 12)
    (home / "newer.jsonl").write_text(text[0].replace('"format":1', '"format":9') + "\n")
    assert "format 9" in hf("import", "newer.jsonl").err


def test_a_failed_export_leaves_no_file(hf: Run, home: Path) -> None:
    fill(hf, home)
    shutil.rmtree(next((home / ".local/share/holdfast/blobs").glob("??")))
    assert hf("export", "--out", "all.jsonl").code == 7
    assert not [path for path in home.iterdir() if "all.jsonl" in path.name]


def test_sessions_are_sessions_after_an_export(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes a record a session, or a message of one, is its kind; it came back as a plain value."""
    here = home / ".local/share/holdfast"
    with Store(here, "me") as store, store.batch() as batch:
        about = {"agent_name": "me", "status": "active", "created_at": "2026-01-06", "updated_at": "2026-01-06"}
        batch.take(msgspec.structs.replace(sessions.draft("session", "session_1/session", about), tags=()))
        said = {"role": "user", "content": "hello", "timestamp": "2026-01-06", "metadata": {}}
        batch.take(msgspec.structs.replace(sessions.draft("message", "session_1/msg/msg_1", said), tags=()))
    hf("export", "--out", "all.jsonl")
    monkeypatch.setenv("HOLDFAST_STORE", str(home / "second"))
    hf("init", "--agent", "me")
    assert hf("import", "all.jsonl").code == 0
    assert contents(hf("export").text) == contents((home / "all.jsonl").read_text())
    with Store(home / "second", "me") as store:
        kinds = [store.history(key, collection="sessions")[0].kind for key in store.keys(collection="sessions")]
    assert kinds == ["message", "session"]


def test_a_pipe_that_is_written_to_stays_a_pipe(hf: Run, home: Path) -> None:
    hf("put", "k", "1")
    pipe = home / "pipe"
    os.mkfifo(pipe)
    for words in (("export", "--out", str(pipe)), ("metrics", "--output", str(pipe))):
        found: list[bytes] = []
        reader = threading.Thread(target=lambda into=found: into.append(pipe.read_bytes()), daemon=True)
        reader.start()
        assert hf(*words).code == 0
        reader.join(10)
        assert found
        assert found[0]
        assert pipe.is_fifo(), "and /dev/null would have become a file, for every program of the machine"


def test_a_path_that_is_empty_or_no_text_is_a_mistake_of_the_line(hf: Run, home: Path) -> None:
    (home / "chat.json").write_bytes(json.dumps(CHAT).encode())
    for words in (("import", ""), ("import", "--dry-run", "chat.json", "")):
        result = hf(*words)
        assert result.code == 2, result
        assert "fault of our own" not in result.err
    for words in (
        ("metrics", "--output="),
        ("export", "--out="),
        ("metrics", "--output=\udcff/x"),
        ("doctor", "--store=\udcff"),
    ):
        result = hf(*words)
        assert result.code in (1, 2), result
        assert "fault of our own" not in result.err
    assert b"chat" not in hf("sessions", "list").out
