"""Other programs' conversations are read whole, in order, and one bad line costs one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.transcripts import Bad, Found, Other, Said, chat, claude, codex, recognise

SHARED = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[3] / "shared" / "data") / "conversations.json"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 2+2?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "add"}}]},
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
]
CLAUDE = [
    {"type": "summary", "summary": "Adding", "leafUuid": "u2"},
    {"type": "file-history-snapshot", "messageId": "x"},
    {
        "type": "user",
        "sessionId": "s1",
        "uuid": "u1",
        "parentUuid": None,
        "timestamp": "2026-01-06T12:00:00Z",
        "cwd": "/home/a",
        "message": {"role": "user", "content": "What is 2+2?"},
    },
    {
        "type": "assistant",
        "sessionId": "s1",
        "uuid": "u2",
        "parentUuid": "u1",
        "timestamp": "2026-01-06T12:00:02Z",
        "message": {"role": "assistant", "model": "m", "content": [{"type": "tool_use", "id": "t", "input": {}}]},
    },
    {"type": "system", "sessionId": "s1", "uuid": "u3", "content": "Compacted", "timestamp": "2026-01-06T12:00:03Z"},
]
CODEX = [
    {"timestamp": "2026-01-06T12:00:00Z", "type": "session_meta", "payload": {"id": "s2", "cwd": "/home/a"}},
    {
        "timestamp": "2026-01-06T12:00:01Z",
        "type": "response_item",
        "payload": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "2+2?"}]},
    },
    {"timestamp": "2026-01-06T12:00:01Z", "type": "event_msg", "payload": {"type": "user_message", "message": "2+2?"}},
    {"type": "response_item", "payload": {"type": "reasoning", "summary": [], "encrypted_content": "x"}},
    {"type": "response_item", "payload": {"type": "function_call", "name": "sh", "arguments": "{}", "call_id": "c"}},
    {"type": "response_item", "payload": {"type": "function_call_output", "call_id": "c", "output": "4"}},
    {"type": "response_item", "payload": {"type": "message", "role": "assistant", "content": "4"}},
]


def lines(values: list[Any]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def read(data: bytes, name: str = "file") -> list[Found]:
    """What the reader that recognises the data finds in it."""
    known = recognise(data)
    assert known is not None, "not recognised"
    return list(known[1](data, name))


def said(data: bytes, name: str = "file") -> list[Said]:
    """Only what was said."""
    return [found for found in read(data, name) if isinstance(found, Said)]


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (json.dumps(CHAT).encode(), chat.read),
        (json.dumps({"messages": CHAT}, indent=1).encode(), chat.read),
        (json.dumps([{"traj": CHAT, "task_id": 1}]).encode(), chat.read),
        (lines(CHAT), chat.read_lines),
        (lines([{"messages": CHAT}]), chat.read_lines),
        (lines(CLAUDE), claude.read),
        (lines(CODEX), codex.read),
        (b"{broken\n" + lines(CODEX), codex.read),
    ],
)
def test_a_format_is_recognised_by_its_content(data: bytes, reader: Any) -> None:
    known = recognise(data)
    assert known is not None
    assert known[1] is reader


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00\xff", b'{"a": 1}', b"[1, 2, 3]", b'{"type": "x"}\n{"b": 1}\n'])
def test_what_is_no_conversation_is_not_recognised(data: bytes) -> None:
    assert recognise(data) is None


def test_a_chat_keeps_every_field() -> None:
    found = said(json.dumps({"messages": CHAT}).encode(), "chat")
    again = [{"role": each.role, "content": each.body, **each.rest} for each in found]
    assert again == CHAT
    assert [each.place for each in found] == ["0", "1", "2", "3"]
    assert {each.thread for each in found} == {"chat-0"}


def test_a_chat_knows_its_conversations_by_their_own_names() -> None:
    data = json.dumps([{"id": "a", "messages": CHAT}, {"task_id": 3, "trial": 1, "traj": CHAT}, {"messages": CHAT}])
    assert list(dict.fromkeys(each.thread for each in said(data.encode(), "f"))) == ["f-a", "f-3-1", "f-2"]


def test_two_conversations_of_one_name_stay_two() -> None:
    data = json.dumps([{"id": "a", "messages": CHAT}, {"id": "a", "messages": CHAT}]).encode()
    found = said(data)
    assert len({each.id for each in found}) == len(found) == 2 * len(CHAT)


def test_a_session_of_claude_code_is_read() -> None:
    found = read(lines(CLAUDE), "s1")
    speakers = [(each.role, each.kind, each.thread) for each in found if isinstance(each, Said)]
    assert speakers == [
        ("system", "summary", "s1"),
        ("user", "message", "s1"),
        ("assistant", "message", "s1"),
        ("system", "message", "s1"),
    ]
    reply = found[3]
    assert isinstance(reply, Said)
    assert reply.body == CLAUDE[3]["message"]["content"]
    assert reply.time == "2026-01-06T12:00:02Z"
    assert reply.rest == {"uuid": "u2", "parentUuid": "u1", "message": {"model": "m"}}
    assert sum(isinstance(each, Other) for each in found) == 1


def test_a_session_of_codex_is_read() -> None:
    found = said(lines(CODEX), "rollout-2026-01-06-x")
    assert [(each.role, each.kind) for each in found] == [
        ("user", "message"),
        ("assistant", "reasoning"),
        ("assistant", "tool_call"),
        ("tool", "tool_result"),
        ("assistant", "message"),
    ]
    assert {each.thread for each in found} == {"s2"}
    assert found[3].body == "4"
    assert found[3].rest["call_id"] == "c"


def test_an_old_session_of_codex_is_read() -> None:
    old = [
        {"id": "s3", "timestamp": "2025-05-01T00:00:00Z", "instructions": None},
        {"record_type": "state"},
        {"type": "message", "role": "user", "content": []},
    ]
    (only,) = said(lines(old))
    assert (only.thread, only.role) == ("s3", "user")


@pytest.mark.parametrize("values", [CHAT, CLAUDE, CODEX])
def test_a_bad_line_costs_one_line(values: list[Any]) -> None:
    whole = said(lines(values))
    broken = lines(values[:3]) + b'{"cut": "off\n' + b"\xff\xfe\n" + b"[]\n" + lines(values[3:])
    found = read(broken)
    bad = [each for each in found if isinstance(each, Bad)]
    assert [each.line for each in bad] == [4, 5, 6]
    assert all(each.why for each in bad)
    assert [each.body for each in found if isinstance(each, Said)] == [each.body for each in whole]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "user", "sessionId": "s"},
        {"type": "user", "sessionId": "s", "message": {"role": "user"}},
        {"type": None, "sessionId": "s"},
        {"type": "response_item", "payload": None},
        {"type": "response_item", "payload": {"type": "message"}},
        {"type": "response_item", "payload": {"a": 1}},
    ],
)
def test_a_line_without_what_its_type_needs_is_bad(event: dict[str, Any]) -> None:
    reader = codex.read if "payload" in event else claude.read
    assert [type(found) for found in reader(lines([event]), "f")] == [Bad]


def test_a_document_that_was_cut_off_gives_what_is_whole_and_the_line_of_the_rest() -> None:
    text = "[\n" + ",\n".join(json.dumps(each) for each in CHAT) + "\n]"
    found = list(chat.read(text[: text.index("tool_call_id")].encode(), "f"))
    assert [type(each) for each in found] == [Said, Said, Said, Bad]
    assert found[-1].line == 5
    without_end = list(chat.read(text.rstrip("]").encode(), "f"))
    assert [type(each) for each in without_end] == [Said, Said, Said, Said, Bad]


def test_ids_are_made_of_what_was_said() -> None:
    first, second = said(lines(CLAUDE)), said(lines(CLAUDE + CLAUDE[2:3]))
    assert [each.id for each in first] == [each.id for each in second[: len(first)]]
    assert second[-1].id == first[1].id, "a line copied within a session is the same message"
    grown = json.dumps({"messages": [*CHAT, {"role": "user", "content": "ok"}]}).encode()
    before = said(json.dumps({"messages": CHAT}).encode())
    assert [each.id for each in said(grown)[:-1]] == [each.id for each in before]
    changed = json.dumps({"messages": [{**CHAT[0], "content": "Be long."}]}).encode()
    assert said(changed)[0].id != before[0].id


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared conversations")
def test_the_shared_conversations_are_read_whole() -> None:
    data = SHARED.read_bytes()
    found = read(data, "conversations")
    assert len(found) == len({each.id for each in found if isinstance(each, Said)}) == 5308
    originals = [message for conversation in json.loads(data) for message in conversation["traj"]]
    again = [{"role": e.role, "content": e.body, **e.rest} for e in found if isinstance(e, Said)]
    assert again == originals
