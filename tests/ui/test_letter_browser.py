"""The page of a message in a real browser: for everybody, by keyboard, live, and with nothing hostile alive in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.flow.hubs import HubProcess
from tests.ui.conftest import AXE, Watched, asker, follow
from tests.ui.furnishing import Furnisher
from tests.ui.hostile_letters import LARGE, hostile_messages
from tests.ui.test_browser import ALL, COLOURS, looked_at, wrong

PLACE = "/messages/release-17?tab=feed"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub of this module's own."""
    process = HubProcess(tmp_path_factory.mktemp("letter") / "hub")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def mail(hub: HubProcess) -> Furnisher:
    """Fills it."""
    furnisher = Furnisher(asker(hub.url))
    furnisher.mail()
    furnisher.letters()
    return furnisher


def test_it_is_for_every_eye_on_every_screen(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("long", kind="report", content="x" * 400 + " `" + "y" * 400 + "`", sender="z" * 200, task_id="t" * 200)
    mail.send("quotes", content="> " * 12 + "deep")
    places = [
        PLACE,
        "/messages/long",
        "/messages/large",
        "/messages/quotes",
        "/messages/build-17",
        "/threads/release-17",
    ]
    places += ["/messages/tool-17", "/messages/release-17?done=acknowledged&n=1&undo=1-1"]
    found = looked_at(chromium, [(hub.url, place) for place in places])
    assert not found, json.dumps(found, indent=1)


def test_a_destructive_action_is_asked_for_once_more(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("ask-me", content="Full", actions=[{"name": "drop", "args": {"table": "leads"}, "destructive": True}])
    context = chromium.new_context(bypass_csp=True, viewport={"width": 360, "height": 740})
    page = context.new_page()

    def is_for_everybody() -> None:
        page.evaluate(AXE)
        for scheme, rules in (("light", ALL), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme)
            assert wrong(page, rules) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    page.goto(f"{hub.url}/messages/ask-me")
    page.get_by_text("Edit, then execute").click()
    page.get_by_label("Arguments of drop, as JSON").fill('{"table": ')
    follow(page.get_by_role("button", name="Execute as edited"))
    assert "not JSON" in page.locator(".problem").inner_text()
    is_for_everybody()
    assert page.get_by_label("Arguments of drop, as JSON").input_value() == '{"table": '
    page.get_by_label("Arguments of drop, as JSON").fill('{"table": "old"}')
    follow(page.get_by_role("button", name="Execute as edited"))
    assert page.locator("h1").inner_text() == "Execute drop?"
    is_for_everybody()
    assert '"table": "old"' in page.locator("pre").inner_text()
    follow(page.get_by_role("button", name="Yes, execute it"))
    page.locator(".tasks li", has_text="drop").wait_for()
    context.close()


def test_without_javascript_it_is_answered(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("no-js", content="Well?", kind="report")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{hub.url}/messages/no-js?tab=feed&kind=report")
    page.get_by_label("To recruiter-1").fill("Done.")
    follow(page.get_by_role("button", name="Send"))
    assert page.url == f"{hub.url}/messages/no-js?tab=feed&kind=report&done=replied"
    assert "Sent." in page.inner_text("#toast")
    assert "Done." in page.get_by_text("The conversation").locator("xpath=..").inner_text()
    page.get_by_text("Another task that follows from it").click()
    page.get_by_label("What is to be done").fill("call them")
    follow(page.get_by_role("button", name="Give the task"))
    assert "call them" in page.locator(".tasks").inner_text()
    follow(page.get_by_role("button", name="Archive"))
    follow(page.get_by_role("button", name="Undo"))
    assert "Archived" not in page.locator("#standing").inner_text()
    context.close()


def test_all_is_done_by_keyboard_alone(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    for number in (1, 2, 3):
        mail.send(f"key-{number}", kind="alert", content=f"alert {number}", sender="keys")
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    page = watched.go("/messages/key-2?tab=needs&from=keys")

    def leads(key: str) -> None:
        # What a key says of a message may be seen live before the page comes that tells so, with the way back.
        with page.expect_navigation():
            page.keyboard.press(key)

    def stands(text: str) -> None:
        page.locator("#standing", has_text=text).wait_for()

    def stands_read() -> None:
        page.locator("#standing", has_text=re.compile(r"\bRead\b")).wait_for()

    def focus_is_on(what: str) -> None:
        page.wait_for_function("name => document.activeElement.name === name", arg=what)

    page.keyboard.press("[")
    page.wait_for_url(f"{hub.url}/messages/key-3?tab=needs&from=keys")
    page.keyboard.press("]")
    page.wait_for_url(f"{hub.url}/messages/key-2?tab=needs&from=keys")
    stands_read()
    leads("e")
    stands("Taken on")
    assert "done=" not in page.url, "what was done is told once"
    assert not page.locator("button[value=acknowledge]").is_visible()
    leads("z")
    stands_read()
    leads("#")
    stands("Archived")
    page.keyboard.press("h")
    assert page.evaluate("document.activeElement.tagName") != "SELECT", "what is archived is not put off"
    leads("z")
    stands_read()
    page.keyboard.press("h")
    focus_is_on("until")
    page.keyboard.press("Tab")
    leads("Enter")
    stands("Snoozed")
    leads("z")
    stands_read()
    page.keyboard.press("r")
    page.keyboard.type("e # z [")
    assert page.locator("textarea[name=text]").input_value() == "e # z [", "no key works while one types"
    page.keyboard.press("Tab")
    leads("Enter")
    page.locator("#toast", has_text="Sent.").wait_for()
    stands("Taken on")
    leads("U")
    stands("Unread")
    page.keyboard.press("Shift+E")
    focus_is_on("name")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_url(f"{hub.url}/messages?tab=needs&from=keys")
    page.locator(".open", has_text="alert 1").focus()
    page.keyboard.press("r")
    page.wait_for_url(f"{hub.url}/messages/key-1?tab=needs&from=keys**")
    focus_is_on("text")
    assert watched.complaints == []
    context.close()


def test_what_happens_elsewhere_is_seen_within_a_second(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    with watched.page.expect_response(lambda response: "/ui/events" in response.url):
        page = watched.go(PLACE)
    page.locator("textarea[name=text]").fill("half a word")
    mail.json("POST", "/v1/messages/release-17/state", {"state": "acknowledged", "reader": "ada"})
    page.locator("#standing", has_text="Taken on").wait_for()
    page.locator(".trail li", has_text="acknowledged by ada").wait_for()
    page.locator("button[value=acknowledge]").wait_for(state="hidden")
    follow(page.locator("button", has_text="Execute Deploy build 17"))
    task = page.locator(".tasks li", has_text="Deploy build 17")
    task.wait_for()
    page.locator("textarea[name=text]").fill("half a word")
    known = mail.json("GET", "/v1/inbox?for=coder-1&state=all", None)["mail"]
    (mine,) = [each["msg_id"] for each in known if each["kind"] == "task"]
    said = {"state": "done", "reader": "coder-1", "result": {"deployed": "<b>17</b>"}}
    mail.json("POST", f"/v1/messages/{mine}/state", said)
    task.locator("pre", has_text='{"deployed":"<b>17</b>"}').wait_for()
    assert page.locator("textarea[name=text]").input_value() == "half a word", "nothing that is typed is lost"
    follow(task.get_by_role("link"))
    assert page.locator("h1").inner_text() == "deploy"
    assert watched.complaints == []
    assert watched.strangers == []
    context.close()


def test_nothing_hostile_lives(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    messages = hostile_messages()
    for each in messages:
        fields = {name: value for name, value in each.items() if value is not None}
        mail.json("POST", "/sync/message", fields)
    for number, text in enumerate(LARGE.values()):
        mail.json("POST", "/sync/message", {"msg_id": f"large-{number}", "recipient": "people", "content": text})
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    # A conversation shows what all of its messages say; of the rest of a page each is much like the next.
    places = [f"/threads/{quote(each, safe='')}" for each in {each["thread"]: 0 for each in messages}]
    places += [f"/messages/{quote(each['msg_id'], safe='')}" for each in messages[::4]]
    places += [f"/messages/large-{number}" for number in range(0, len(LARGE), 3)]
    for place in places:
        page = watched.go(place)
        assert page.locator("h1").count() == 1, place
        assert page.evaluate("window.owned") is None, place
        bad = (
            "main :is(img, script, iframe, template, style, link, object, embed, base, [onclick], [onload], [onerror])"
        )
        assert page.locator(bad).count() == 0, place
        assert page.locator("main [hx-get], main [hx-trigger]").count() == 0, place
        assert page.evaluate(
            "[...document.querySelectorAll('main a[href]')].every(a => /^(https?|mailto):$/.test(a.protocol))"
        )
    assert watched.strangers == []
    assert watched.complaints == []
    context.close()


def test_a_message_is_light(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    sizes = list[int]()
    watched.page.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
    watched.go(PLACE)
    assert len(watched.requests) <= 8, watched.requests
    assert sum(sizes) <= 100_000, sizes
    context.close()
