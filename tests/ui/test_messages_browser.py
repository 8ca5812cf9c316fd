"""The list of messages in a real browser: by keyboard alone, live for every viewer, and without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.hub.ui.messages import ROWS
from tests.flow.hubs import HubProcess
from tests.ui.conftest import Watched, asker, follow, type_at_once
from tests.ui.furnishing import Furnisher


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub of this module's own."""
    process = HubProcess(tmp_path_factory.mktemp("messages") / "hub")
    yield process
    process.kill()


@pytest.fixture
def mail(hub: HubProcess) -> Furnisher:
    """Fills it; what an earlier test left is put away."""
    furnisher = Furnisher(asker(hub.url))
    for each in furnisher.json("GET", "/v1/inbox?state=open&limit=1000", None)["mail"]:
        furnisher.json("POST", f"/v1/messages/{each['msg_id']}/state", {"state": "archived"})
    return furnisher


def shown(page: Any) -> list[str]:
    """The lines of the list, the newest first."""
    found: list[str] = page.locator(".mails .open").all_inner_texts()
    return found


def has(page: Any, *lines: str) -> None:
    """Waits until the list shows these lines and no others."""
    page.wait_for_function(
        "wanted => JSON.stringify([...document.querySelectorAll('.mails .open')].map(e => e.innerText)) == wanted",
        arg=page.evaluate("JSON.stringify", list(lines)) if lines else "[]",
    )


def told(page: Any, text: str) -> None:
    """Waits until the page says what was done: a list may follow what happens before the hub's answer is there."""
    page.locator("#toast", has_text=text).wait_for()


def focused(page: Any) -> str:
    """What has the focus."""
    found: str = page.evaluate("document.activeElement.innerText")
    return found


def test_all_of_a_morning_by_keyboard_alone(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    for number in range(8, 0, -1):
        mail.send(f"k{number}", kind="alert", content=f"alert {number}")
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    page = watched.go("/nodes")
    assert page.locator("#mail-badge .figure").inner_text() == "8"
    type_at_once(page, "gm")
    page.wait_for_url("**/messages")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert focused(page) == "alert 2"
    page.keyboard.press("k")
    page.keyboard.press("e")
    told(page, "1 message acknowledged")
    has(page, *(f"alert {number}" for number in range(2, 9)))
    assert focused(page) == "alert 2", "on to the next"
    page.locator("#mail-badge .figure", has_text="7").wait_for()
    page.keyboard.press("z")
    told(page, "1 message as before")
    has(page, *(f"alert {number}" for number in range(1, 9)))
    page.keyboard.press("x")
    for _ in range(2):
        page.keyboard.press("j")
    page.keyboard.press("Shift+X")
    page.keyboard.press("#")
    told(page, "3 messages archived")
    has(page, *(f"alert {number}" for number in (1, 5, 6, 7, 8)))
    page.keyboard.press("z")
    told(page, "3 messages as before")
    has(page, *(f"alert {number}" for number in range(1, 9)))
    page.keyboard.press("h")
    assert page.evaluate("document.activeElement.name") == "until"
    for _ in range(2):
        page.keyboard.press("Tab")
    while focused(page) != "Snooze":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    told(page, "1 message snoozed")
    page.keyboard.press("/")
    page.keyboard.type("alert e")
    assert page.locator("#q").input_value() == "alert e", "no key works while one types"
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    assert page.inner_text("#live-toggle") == "Paused"
    page.keyboard.press("?")
    assert page.locator("#keys dl").is_visible()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/messages/k*")
    page.go_back()
    page.wait_for_url("**/messages")
    page.keyboard.press("j")
    page.keyboard.press("Shift+E")
    page.wait_for_url("**#execute")
    page.go_back()
    page.wait_for_url("**/messages")
    follow(page.get_by_role("button", name="keys on"))
    page.keyboard.press("j")
    assert page.locator("tr.at").count() == 0, "keys can be turned off"
    context.close()


def test_every_viewer_sees_what_happens_and_no_row_jumps(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    for number in range(30, 0, -1):
        mail.send(f"v{number}", kind="question", content=f"question {number}")
    context = chromium.new_context(viewport={"width": 1100, "height": 600})
    one, two, far = (Watched(context, hub.url) for _ in range(3))
    first, second, other = one.go("/messages"), two.go("/messages"), far.go("/agents")
    first.locator("#m1, tr").first.wait_for()
    second.locator("tr", has_text="question 3").get_by_role("checkbox").first.check()
    second.get_by_role("button", name="Archive").click()
    told(second, "1 message archived")
    first.wait_for_function("() => !document.body.innerText.includes('question 3\\n')")
    other.locator("#mail-badge .figure", has_text="29").wait_for()

    mail.send("new-1", kind="alert", content="something new")
    first.locator(".open", has_text="something new").wait_for()
    assert shown(first)[0] == "something new"
    first.evaluate("window.scrollTo(0, 400)")
    first.wait_for_function("() => window.scrollY > 300")
    top = shown(first)[0]
    mail.send("new-2", kind="alert", content="something newer")
    first.locator("#show-new", has_text="1 new").wait_for()
    assert shown(first)[0] == top, "no row jumps under the eye"
    second.locator("tr", has_text="question 7").get_by_role("checkbox").first.check()
    second.get_by_role("button", name="Acknowledge", exact=True).click()
    told(second, "1 message acknowledged")
    first.wait_for_function("() => !document.body.innerText.includes('question 7\\n')")
    assert shown(first)[0] == top, "what has gone has gone, and nothing has come"
    first.locator("#mail-badge .figure", has_text="30").wait_for()
    first.locator("#show-new").click()
    has_new = first.locator(".open", has_text="something newer")
    has_new.wait_for()
    assert shown(first)[0] == "something newer"
    first.get_by_role("button", name="Live").click()
    mail.send("new-3", kind="alert", content="while paused")
    first.locator("#mail-badge .figure", has_text="31").wait_for()
    assert "while paused" not in shown(first)
    first.get_by_role("button", name="Paused").click()
    first.locator(".open", has_text="while paused").wait_for()
    for each in (one, two, far):
        assert each.complaints == []
        assert each.strangers == []
    context.close()


def test_a_hub_that_comes_back_has_everything_in_order(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    context = chromium.new_context()
    context.set_default_timeout(30_000)
    watched = Watched(context, hub.url)
    with watched.page.expect_response(lambda answer: "/ui/events" in answer.url):
        page = watched.go("/messages?tab=feed&kind=back")
    hub.kill()
    hub.start()
    for number in range(100):
        mail.send(f"b{number}", kind="back", content=f"number {number}")
    page.locator(".open", has_text="number 99").wait_for()
    has(page, *(f"number {number}" for number in range(99, 99 - ROWS, -1)))
    context.close()


def test_without_javascript_mail_is_found_acted_on_and_undone(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("q1", kind="question", content="which colour?", sender="coder-1")
    mail.send("q2", kind="report", content="a report", sender="coder-2")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(hub.url)
    follow(page.get_by_role("navigation", name="Main").get_by_role("link", name="Messages"))
    assert shown(page) == ["which colour?"]
    follow(page.get_by_role("link", name="Feed").first)
    page.get_by_label("Search").fill("from:coder-2 report")
    follow(page.get_by_role("button", name="Search"))
    assert shown(page) == ["a report"]
    page.get_by_role("checkbox", name="Choose").check()
    follow(page.get_by_role("button", name="Acknowledge", exact=True))
    assert "1 message acknowledged" in page.inner_text("#toast")
    assert page.locator(".mails .state", has_text="Taken on").count() == 1
    follow(page.get_by_role("button", name="Undo"))
    assert page.locator(".mails .state", has_text="Unread").count() == 1
    assert page.get_by_label("Search").input_value() == "from:coder-2 report", "where one was"
    page.get_by_text("All that match…").click()
    follow(page.get_by_role("button", name="All that match, on every page…"))
    follow(page.get_by_role("button", name="Yes: 1 message acknowledged"))
    assert "1 message acknowledged" in page.inner_text("#toast")
    page.get_by_text("Views").click()
    page.get_by_label("Save this list as").fill("mine")
    follow(page.get_by_role("button", name="Save"))
    page.get_by_text("Views").click()
    follow(page.get_by_role("link", name="mine"))
    assert shown(page) == ["a report"]
    context.close()
