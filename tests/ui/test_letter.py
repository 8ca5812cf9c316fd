"""The page of a message over HTTP: what it shows, what its forms do, and that what it says does nothing."""

from __future__ import annotations

import html
import json
import re
import threading
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from holdfast.hub.tokens import Wish, create
from holdfast.hub.ui.markdown import rendered
from holdfast.hub.ui.trail import arrival
from tests.hub.pens import Pen
from tests.ui.furnishing import HOSTILE
from tests.ui.hostile_letters import LARGE, MARKDOWN, hostile_messages
from tests.ui.inside import Guarded, Inside
from tests.ui.test_pages import Tags

DEPLOY = {"name": "deploy", "id": "deploy-17", "title": "Deploy build 17", "args": {"build": 17}}
DROP = {"name": "drop", "title": "Drop the table", "args": {"table": "leads"}, "destructive": True, "to": "dba"}


def post(inside: Inside, **fields: Any) -> str:
    """Posts a message; its id."""
    body = {"sender": "coder-1", "recipient": "people", **fields}
    return str(inside.furnisher.json("POST", "/sync/message", body)["msg_id"])


def form_of(inside: Inside, place: str, to: str, **having: str) -> dict[str, str]:
    """The hidden fields of the one form of a page that sends there."""
    text, out = inside.good(place), []
    for found in re.findall(rf'<form[^>]*action="{to}".*?</form>', text, re.S):
        pairs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', found)
        fields = {name: html.unescape(value) for name, value in pairs}
        if having.items() <= fields.items():
            out.append(fields)
    assert out, f"{place} has no form to {to} with {having}"
    return out[0]


def twin(inside: Inside, msg: str, **query: str) -> Any:
    """The JSON of a message's page."""
    answer = inside.client.get(f"/messages/{quote(msg, safe='')}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(inside: Inside, msg: str, **said: Any) -> None:
    """Says something of a message, over the API."""
    inside.ask("POST", f"/v1/messages/{quote(msg, safe='')}/state", json.dumps(said).encode())


# -- what it shows ------------------------------------------------------------------------------------------------


def test_a_message_is_shown_with_what_became_of_it(inside: Inside) -> None:
    pen = Pen("coder-1")
    pen.stamp = (inside.core.home.wall.now_ms() - 6) << 16
    envelope = {"body": "**Build 17** is ready:\n\n- tests pass", "to": "people", "priority": "high", "task": "t-17"}
    written = pen.put("m-1", envelope, collection="messages", kind="report")
    inside.furnisher.ship("laptop", [pen])
    state(inside, "m-1", state="read", reader="main")
    state(inside, "m-1", state="snoozed", until=4_000_000_000)
    state(inside, "m-1", state="undo")
    state(inside, "m-1", state="done", result={"deployed": True})
    text = inside.good("/messages/m-1")
    assert "<strong>Build 17</strong> is ready:" in text
    assert "<li>tests pass</li>" in text
    told = twin(inside, "m-1")
    assert (told["node"], told["standing"]["tab"], told["message"]["priority"]) == ("laptop", "done", "high")
    steps = told["standing"]["trail"]
    assert [(step["what"], step["who"]) for step in steps] == [
        ("written", "coder-1"),
        ("at the hub", ""),
        ("read", "main"),
        ("snoozed", "people"),
        ("put back", "people"),
        ("done", "people"),
    ]
    assert steps[0]["note"] == "laptop"
    assert re.fullmatch(r"\+[\d,]+ ms", steps[1]["note"]), steps[1]
    assert steps[3]["until"] == "2096-10-02T07:06:40.000Z"
    assert [step["at"] for step in steps] == sorted(step["at"] for step in steps)
    assert told["standing"]["results"] == [
        {"who": "people", "result": '{"deployed":true}', "more": False, "letter": ""}
    ]
    record = told["record"]
    assert record["link"] == written.link.hex()
    assert record["payload_hash"] == written.payload_hash.hex()
    for shown in (record["link"], record["payload_hash"], "by <bdi>main</bdi>", "by you", "{&#34;deployed&#34;:true}"):
        assert shown in text, shown
    raw = inside.client.get("/messages/m-1/raw")
    assert raw.json() == envelope
    assert raw.headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in raw.headers["content-security-policy"]
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_when_the_hub_had_it_is_told_no_better_than_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    class Notes:
        """What the hub has noted: by 1,000 ms all up to 10 had come, and so on."""

        rows = ((1_000, 10), (6_000, 40), (900_000, 41))
        many = 100

        def one(self, _: str, args: tuple[int]) -> tuple[int, int] | None:
            return max((row for row in self.rows if row[0] <= args[0]), default=None)

        def query(self, _: str, args: tuple[int]) -> list[tuple[int, int]]:
            return [row for row in self.rows if row[0] > args[0]][: self.many]

    def at(pos: int, written: int = 990) -> tuple[int, bool] | None:
        return arrival(Notes(), pos, written, 1_000_000)

    assert at(11) == (1_000, True), "the first one behind a note came with it"
    assert at(25) == (1_000, False), "and later ones within five seconds"
    assert at(41) == (6_000, True)
    assert at(42) == (900_000, True), "what was offline for a quarter of an hour"
    assert at(41, written=500_000) == (6_000, True), "by a clock that is ahead"
    assert at(5) is None, "from before there were notes"
    monkeypatch.setattr(Notes, "rows", tuple((5_000 * n, 10 * n) for n in range(1, 150)))
    assert at(1_301) == (650_000, True), "behind all that is looked through at once"


def test_what_is_next_to_it_is_next_in_the_list_that_one_came_from(inside: Inside) -> None:
    for number in range(6):
        kind = ("alert", "report")[number % 2]
        post(inside, msg_id=f"m-{number}", kind=kind, content=f"{kind} number {number}")
    told = twin(inside, "m-2", tab="needs", kind="alert")["next_to"]
    assert told == {
        "newer": "/messages/m-4?tab=needs&kind=alert",
        "older": "/messages/m-0?tab=needs&kind=alert",
        "back": "/messages?tab=needs&kind=alert",
    }
    ends = twin(inside, "m-5", tab="feed")["next_to"]
    assert (ends["newer"], ends["older"]) == ("", "/messages/m-4?tab=feed")
    assert twin(inside, "m-4", tab="feed", kind="report")["next_to"]["newer"] == "/messages/m-5?tab=feed&kind=report"
    found = twin(inside, "m-3", tab="feed", q="report")["next_to"]
    assert (urlsplit(found["newer"]).path, urlsplit(found["older"]).path) == ("/messages/m-5", "/messages/m-1")
    page = inside.good("/messages/m-2?tab=needs&kind=alert")
    assert 'href="/messages/m-0?tab=needs&amp;kind=alert" rel="next"' in page
    state(inside, "m-4", state="acknowledged")
    assert twin(inside, "m-2", tab="needs", kind="alert")["next_to"]["newer"] == "", "it has left the list"


def test_ids_that_are_nobodys_alone_or_no_part_of_a_path(inside: Inside) -> None:
    for sender in ("ada", "bob"):
        pen = Pen(sender)
        pen.message("same", f"of {sender}", to="people")
        inside.furnisher.ship(sender, [pen])
    choice = inside.good("/messages/same")
    assert "Several senders" in choice
    for link in re.findall(r'href="(/messages/same\?[^"]+)"', choice):
        assert "of ada" in inside.good(link) or "of bob" in inside.good(link)
    assert twin(inside, "same", sender="bob")["message"]["content"] == "of bob"
    for name in ("a/b", "..", "x.json", "act", "reply", "ü ?#", "-"):
        post(inside, msg_id=name, content=f"named {name}", thread=name)
        place = f"/messages/-?id={quote(name, safe='')}"
        assert f"<h1><bdi>named {html.escape(name)}</bdi></h1>" in inside.good(place)
        assert inside.client.get(place.replace("?", "/raw?")).json()["body"] == f"named {name}"
        assert f"named {html.escape(name)}" in inside.good(f"/threads/-?id={quote(name, safe='')}")
    assert "named a/b" in inside.good("/messages/a%2Fb")
    assert inside.page("/messages/nowhere").status_code == 404
    assert inside.page("/messages/act/whatever").status_code == 404


def test_a_conversation_comes_in_pages_and_in_order(inside: Inside) -> None:
    post(inside, msg_id="root", content="How many?", kind="question")
    for number in range(120):
        post(inside, msg_id=f"r-{number:03}", content=f"answer {number:03}", thread="root", in_reply_to="root")
    post(inside, msg_id="tool", content={"hits": [1]}, thread="root", role="tool")
    place, ids = "/threads/root", list[str]()
    while place:
        text = inside.good(place)
        ids += re.findall(r'href="/messages/([\w-]+)\?sender=coder-1">open', text)
        following = re.search(r'href="([^"]+)" rel="next"', text)
        place = html.unescape(following[1]) if following else ""
    assert ids == ["root", *(f"r-{number:03}" for number in range(120)), "tool"]
    assert "<summary>What the tool said</summary>" in text
    assert 'href="/threads/root"' in inside.good("/messages/r-119"), "and a message leads to it"


# -- answering ----------------------------------------------------------------------------------------------------


def test_an_answer_reaches_whoever_asks_and_is_sent_once(inside: Inside) -> None:
    post(
        inside, msg_id="q-1", kind="question", content="Hire her?", options=["yes", {"if": "cheap"}, "no"], task_id="t"
    )
    place = "/messages/q-1?tab=needs"
    form = form_of(inside, place, "/messages/reply")
    for _ in range(2):
        answer = inside.send("/messages/reply", {**form, "option": "1"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{place}&done=replied")
    assert "Sent." in inside.good(answer.headers["location"])
    (got,) = inside.client.get("/v1/inbox?for=coder-1").json()["mail"]
    assert (got["sender"], got["kind"], got["content"]) == ("people", "answer", {"if": "cheap"})
    assert (got["in_reply_to"], got["thread"], got["task"]) == ("q-1", "q-1", "t")
    told = twin(inside, "q-1")
    assert told["standing"]["tab"] == "done"
    assert told["standing"]["results"][0]["letter"] == got["msg_id"]
    assert [each["id"] for each in told["in_thread"]] == [got["msg_id"]]
    refused = inside.send("/messages/reply", {**form, "fresh": "f" * 32, "option": "7"})
    assert (refused.status_code, "one of its own answers" in refused.text) == (400, True)


def test_what_was_typed_is_there_again_when_something_was_wrong(inside: Inside) -> None:
    post(inside, msg_id="q-1", kind="question", content="Why?")
    form = form_of(inside, "/messages/q-1?tab=needs", "/messages/reply")
    words = "Because </textarea><script>x</script>\nof that. " + "y" * 5_000
    answer = inside.send("/messages/reply", {**form, "text": words})
    assert answer.status_code == 400
    assert f"\n{html.escape(words)}</textarea>".replace("&#x27;", "&#39;") in answer.text
    assert 'name="back" value="/messages/q-1?tab=needs"' in answer.text, "and the list that one came from"
    assert inside.send("/messages/reply", {**form, "text": " \n"}).status_code == 400
    state(inside, "q-1", state="withdrawn", reader="coder-1")
    late = inside.send("/messages/reply", {**form, "text": "Because."})
    assert (late.status_code, "has withdrawn this question" in late.text, "Because." in late.text) == (409, True, True)
    assert inside.client.get("/v1/inbox?for=coder-1").json()["mail"] == []


def test_an_action_becomes_one_task_whose_result_is_shown(inside: Inside) -> None:
    post(
        inside, msg_id="m-1", content="Build 17 is ready", priority="hot", task_id="t-17", actions=[DEPLOY, {"nme": 1}]
    )
    text = inside.good("/messages/m-1")
    assert "It offers 1 action more" in text
    assert "&#34;build&#34;: 17" in text
    form = form_of(inside, "/messages/m-1", "/messages/execute", action="deploy-17")
    for done in ("executed", "already"):
        answer = inside.send("/messages/execute", form)
        assert answer.headers.get("location") == f"/messages/m-1?done={done}" or done == "already", answer.text
    (task,) = inside.client.get("/v1/inbox?for=coder-1").json()["mail"]
    assert (task["kind"], task["content"]) == ("task", {"action": "deploy", "args": {"build": 17}})
    assert (task["task"], task["priority"], task["in_reply_to"]) == ("t-17", "hot", "m-1")
    assert twin(inside, "m-1")["standing"]["tab"] == "acknowledged"
    state(inside, task["msg_id"], state="done", reader="coder-1", result={"url": "https://deployed.example"})
    (shown,) = twin(inside, "m-1")["standing"]["tasks"]
    assert (shown["state"], shown["results"][0]["result"]) == ("done", '{"url":"https://deployed.example"}')
    assert "https://deployed.example" in inside.good("/messages/m-1")
    late = inside.send("/messages/execute", {**form, "args": '{"build": 18}'})
    assert late.status_code == 409
    assert "carried out before, by people, with other arguments" in html.unescape(late.text)
    assert "&#34;build&#34;: 18}</textarea>" in late.text, "what was typed is there"
    assert len(inside.client.get("/v1/inbox?for=coder-1&state=all").json()["mail"]) == 1


def test_edited_destructive_and_own_tasks(inside: Inside) -> None:
    fixed = {"name": "stop", "args": {"now": True}, "editable": False}
    post(inside, msg_id="m-1", content={"text": "The table is full", "actions": [DROP, fixed]})
    drop = form_of(inside, "/messages/m-1", "/messages/execute", action="drop")
    for wrong in ("{", "[1]", '{"table": "' + "x" * 17_000 + '"}'):
        refused = inside.send("/messages/execute", {**drop, "args": wrong})
        assert (refused.status_code, "the arguments are" in refused.text) == (400, True), refused.text
        assert html.escape(wrong).replace("&quot;", "&#34;") in refused.text
    asked = inside.send("/messages/execute", {**drop, "args": '{"table": "old_leads"}'})
    assert asked.status_code == 200
    assert "With exactly this" in asked.text
    assert "old_leads" in asked.text
    pairs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked.text.partition("With exactly")[2])
    sure = {name: html.unescape(value) for name, value in pairs}
    other = inside.send("/messages/execute", {**sure, "args": '{"table": "leads"}'})
    assert "With exactly this" in other.text, "a yes is good for what was shown, and for nothing else"
    assert inside.client.get("/v1/inbox?for=dba").json()["mail"] == []
    assert inside.send("/messages/execute", sure).headers["location"] == "/messages/m-1?done=executed"
    (task,) = inside.client.get("/v1/inbox?for=dba").json()["mail"]
    assert task["content"] == {"action": "drop", "args": {"table": "old_leads"}}
    assert task["extra"]["action"]["edited"] is True
    stop = form_of(inside, "/messages/m-1", "/messages/execute", action="stop")
    assert inside.send("/messages/execute", {**stop, "args": '{"now": false}'}).status_code == 400
    own = {"form_token": stop["form_token"], "id": "m-1", "fresh": "a" * 32, "name": "call the owner", "to": "caller"}
    for _ in range(2):
        assert inside.send("/messages/execute", own).status_code == 303
    (call,) = inside.client.get("/v1/inbox?for=caller").json()["mail"]
    assert call["content"] == {"action": "call the owner", "args": {}}
    assert {each["to"] for each in twin(inside, "m-1")["standing"]["tasks"]} == {"dba", "caller"}


def test_two_who_execute_at_once_give_one_task(guarded: Guarded) -> None:
    store = guarded.core.home.open_tokens()
    texts = {name: create(store, Wish(kind="person", name=name))[1] for name in ("eve", "ida")}
    store.close()
    guarded.core.gate.tokens.refresh()
    post(guarded, msg_id="m-1", content="ready", actions=[DEPLOY])
    forms = {}
    for name, text in texts.items():
        guarded.texts[name] = text
        guarded.sign_in(name)
        forms[name] = (form_of(guarded, "/messages/m-1", "/messages/execute"), dict(guarded.client.cookies))
    guarded.client.cookies.clear()
    barrier, got = threading.Barrier(4), list[Any]()

    def press(name: str) -> None:
        fields, cookies = forms[name]
        barrier.wait()
        cookie = "; ".join(f"{key}={value}" for key, value in cookies.items())
        got.append(guarded.send("/messages/execute", fields, Cookie=cookie))

    threads = [threading.Thread(target=press, args=(name,)) for name in ("eve", "ida", "eve", "ida")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert [each.status_code for each in got] == [303] * 4, [each.text for each in got]
    told = sorted(each.headers["location"].rpartition("=")[2] for each in got)
    assert told == ["already", "already", "already", "executed"]
    guarded.sign_in("admin")
    (task,) = twin(guarded, "m-1")["standing"]["tasks"]
    assert task["sender"] in ("eve", "ida")


def test_who_may_read_sees_no_forms_and_who_may_not_sees_nothing(guarded: Guarded) -> None:
    store = guarded.core.home.open_tokens()
    more = {
        "watcher": Wish(kind="service", name="watch", scopes=("records:read",)),
        "clerk": Wish(kind="person", name="kim", scopes=("inbox:act",)),
        "narrow": Wish(kind="person", name="pia", collections=("public/*",)),
    }
    guarded.texts |= {role: create(store, wish)[1] for role, wish in more.items()}
    store.close()
    guarded.core.gate.tokens.refresh()
    post(guarded, msg_id="q-1", kind="question", content="Yes?", actions=[DEPLOY], artifacts=["file_" + "0" * 32])
    post(guarded, msg_id="secret", recipient="recruiter-1", content="between us", thread="q-1")
    guarded.sign_in("watcher")
    text = guarded.good("/messages/q-1")
    assert "/messages/reply" not in text
    assert "/messages/act" not in text
    assert "/messages/execute" not in text
    assert "Deploy build 17" in text
    form = {
        "id": "q-1",
        "text": "no",
        "fresh": "a" * 32,
        "form_token": form_of(guarded, "/", "/ui/scheme")["form_token"],
    }
    for path in ("/messages/reply", "/messages/execute"):
        assert guarded.send(path, {**form, "action": "deploy-17"}).status_code == 403
    for role in ("narrow", "public", "blind"):
        guarded.sign_in(role)
        for place in ("/messages/secret", "/messages/secret.json", "/messages/secret/raw"):
            assert guarded.page(place).status_code in (403, 404), (role, place)
    guarded.sign_in("narrow")  # of people, who may read what is sent to them, whatever else they may not
    assert "Yes?" in guarded.good("/messages/q-1")
    told = twin(guarded, "q-1")
    assert (told["node"], told["in_thread"]) == ("", []), "nor what is said beside it"
    assert "between us" not in guarded.good("/threads/q-1")
    assert guarded.page("/messages/q-1/artifacts/0").status_code in (403, 404)
    guarded.sign_in("clerk")
    assert "Yes?" in guarded.good("/messages/q-1")
    assert guarded.page("/messages/q-1/artifacts/0").status_code == 403, "a message opens nothing beside it"
    guarded.sign_in("narrow")
    answer = guarded.send("/messages/reply", {**form_of(guarded, "/messages/q-1", "/messages/reply"), "text": "Yes."})
    assert answer.status_code == 303, answer.text
    guarded.sign_in("admin")
    (got,) = guarded.client.get("/messages/q-1.json").json()["in_thread"][-1:]
    assert got["sender"] == "pia"
    post(guarded, msg_id="later", content="later")
    assert twin(guarded, "q-1", tab="feed", priority="normal")["next_to"]["newer"].startswith("/messages/later?")
    assert twin(guarded, "later", tab="done", q="Yes")["next_to"]["older"].startswith("/messages/q-1?")
    assert "/messages/act" not in guarded.good("/messages/secret"), "in an agent's inbox its own word counts"
    assert "/messages/act" in guarded.good("/messages/secret?to=recruiter-1"), "unless one looks into it"


# -- what goes with it --------------------------------------------------------------------------------------------


def test_what_goes_with_a_message_is_saved_and_never_shown(inside: Inside) -> None:
    evil = b"<script>window.owned=1</script>"
    head = b'Content-Disposition: form-data; name="file"; filename="a.html"\r\nContent-Type: text/html'
    form = b"--x\r\n%b\r\n\r\n%b\r\n--x--\r\n" % (head, evil)
    stored = json.loads(inside.ask("POST", "/sync/files", form, "multipart/form-data; boundary=x"))
    session = inside.furnisher.json("POST", "/storage/sessions", {"agent_name": "coder-1"})["id"]
    artifact = inside.furnisher.json(
        "POST", "/storage/artifacts", {"session_id": session, "name": "b.svg", "type": "image", "path": "/x"}
    )["id"]
    inside.ask("PUT", f"/storage/artifacts/{artifact}/content", evil, "image/svg+xml")
    given = [
        stored["file_id"],
        {"artifact_id": artifact},
        {"digest": stored["digest"], "name": "c.html\r\nX: y"},
        "d.txt",
    ]
    post(inside, msg_id="m-1", content={"text": "see", "files": given[:2]}, artifacts=given[2:], attachments=given[0])
    told = twin(inside, "m-1")["artifacts"]
    assert [(each["kind"], each["name"], each["size"]) for each in told] == [
        ("blob", "c.html\r\nX: y", len(evil)),
        ("named", "d.txt", None),
        ("file", "a.html", len(evil)),
        ("artifact", "b.svg", len(evil)),
    ]
    for each in told:
        if each["kind"] == "named":
            assert each["url"] == ""
            continue
        answer = inside.page(each["url"])
        assert (answer.status_code, answer.content) == (200, evil)
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "x" not in answer.headers
    assert inside.page("/messages/m-1/artifacts/1").status_code == 404
    assert inside.page("/messages/m-1/artifacts/99").status_code == 404
    post(inside, msg_id="m-2", content="none", artifacts=["file_" + "0" * 32, "1" * 64])
    assert [(each["url"], bool(each["says"])) for each in twin(inside, "m-2")["artifacts"]] == [("", True)] * 2


# -- hostile ------------------------------------------------------------------------------------------------------


ALLOWED = {"p", "br", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "a", "span"}


@pytest.mark.parametrize("text", MARKDOWN)
def test_no_markdown_becomes_more_than_text(text: str) -> None:
    made = str(rendered(text))
    read = Tags()
    read.feed(made)
    assert set(re.findall(r"<([a-z0-9]+)", made)) <= ALLOWED, made
    assert read.attributes <= {"href", "rel", "class", "start"}, made
    assert all(re.match(r"(?:https?://|mailto:)", link) for link in read.links), made
    assert len(re.findall("<a href", made)) == made.count('rel="noopener noreferrer nofollow"'), made


def test_good_markdown_is_read() -> None:
    made = str(rendered("# Title\n\n> **a** *b* `c`\n\n3. x\n4. y\n\n[good](https://good.example/a?b=1&c=2)\nnext"))
    assert made == (
        '<p class="heading"><strong>Title</strong></p><blockquote><p><strong>a</strong> <em>b</em> <code>c</code></p>'
        '</blockquote><ol start="3"><li>x</li><li>y</li></ol>'
        '<p><a href="https://good.example/a?b=1&amp;c=2" rel="noopener noreferrer nofollow">good</a>'
        ' <span class="quiet">(good.example)</span><br>next</p>'
    )
    assert str(rendered("plain, and\nnothing else.")) == '<p class="text">plain, and\nnothing else.</p>'
    assert "evil.example" in str(rendered("[https://bank.example](https://evil.example/x)")).rpartition("</a>")[2]
    assert "image: cat" in str(rendered("![cat](https://good.example/cat.png)"))


def test_large_and_deep_texts_are_shown_to_a_limit(inside: Inside) -> None:
    for number, (name, text) in enumerate(LARGE.items()):
        msg = f"m-{number}"
        post(inside, msg_id=msg, content=text)
        page = inside.good(f"/messages/{msg}")
        assert len(page) < 260_000, (name, len(page))
        depth = most = 0
        for tag in re.findall(r"<(/?)(?:blockquote|ul|ol)\b", page):
            depth += -1 if tag else 1
            most = max(most, depth)
        assert (depth, most < 30) == (0, True), name
        assert inside.client.get(f"/messages/{msg}/raw").json()["body"] == text, name
        if len(text) > 20_000:
            assert "This is its beginning" in page or "too large for a page" in page, name
        assert len(inside.good(f"/threads/{msg}")) < 120_000, name


def test_hostile_messages_do_nothing_on_any_page(inside: Inside) -> None:
    sent = hostile_messages()
    for each in sent:
        post(inside, **{name: value for name, value in each.items() if value is not None})
    pen = Pen(HOSTILE[0])
    pen.message("from a node", HOSTILE[7], to="people", thread="of a node")
    inside.furnisher.ship(HOSTILE[1], [pen])
    assert twin(inside, "from a node")["node"] == HOSTILE[1]
    for each in [*sent, {"msg_id": "from a node", "thread": "of a node"}]:
        place = f"/messages/{quote(each['msg_id'], safe='')}"
        for where in (place, f"/threads/{quote(each['thread'], safe='')}"):
            text = inside.good(where)
            main = text.partition("<main")[2].partition("</main>")[0]
            read = Tags()
            read.feed(main)
            assert read.attributes <= KNOWN, (where, read.attributes - KNOWN)
            assert not re.search(r"<(script|img|iframe|style|link|base|svg|template|b|form(?! ))\b", main), where
            assert all(re.match(r"(?:/|#|https?://|mailto:)", link) for link in read.links), (where, read.links)
            assert not any(link.startswith("//") for link in read.links)


KNOWN = {
    *(
        "action",
        "class",
        "data-focus",
        "data-key",
        "data-tab",
        "data-unread",
        "datetime",
        "dir",
        "download",
        "for",
        "href",
        "id",
    ),
    *("label", "max", "maxlength", "method", "name", "open", "placeholder", "rel", "required", "role", "rows"),
    *("selected", "spellcheck", "start", "tabindex", "title", "type", "value", "autocomplete"),
    *("aria-hidden", "aria-label", "aria-labelledby"),
}
"""Every attribute that the main part of these pages has; whatever is not among them came out of a value."""
