"""A message that is opened is read, in a real browser and by nothing less; and times are said as somebody chose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flow.hubs import HubProcess
from tests.ui.conftest import AXE, Watched, asker, follow
from tests.ui.furnishing import Furnisher
from tests.ui.test_browser import ALL, COLOURS, wrong

READ = re.compile(r"\bRead\b")
UNSEEN = """
window.unseen = true;
Object.defineProperty(Document.prototype, "hidden", { get: () => window.unseen });
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub of this module's own."""
    process = HubProcess(tmp_path_factory.mktemp("reading") / "hub")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def mail(hub: HubProcess) -> Furnisher:
    """Fills it."""
    return Furnisher(asker(hub.url))


def stands(mail: Furnisher, msg: str) -> str:
    """Where a message lies."""
    return str(mail.json("GET", f"/v1/messages/{msg}", None)["state"])


def test_to_open_a_message_is_to_read_it(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    for name in ("one", "two"):
        mail.send(name, kind="report", content=f"number {name}")
    ask = asker(hub.url)
    for method in ("HEAD", "GET"):
        ask(method, "/messages/one", None, "text/html")
    assert stands(mail, "one") == "unread", "to ask for a page is not to read it"
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    page = watched.go("/messages?tab=feed")
    assert page.locator("#mail-badge .figure").inner_text() == "2"
    page.locator(".open", has_text="number one").click()
    page.locator("#standing", has_text=READ).wait_for()
    page.locator("#toast", has_text="Marked as read.").wait_for()
    page.locator(".trail li", has_text="read by you").wait_for()
    page.locator("#mail-badge .figure", has_text=re.compile("^1$")).wait_for()
    with page.expect_navigation():  # that it is unread may be seen live before the page comes that tells so
        page.keyboard.press("z")
    page.locator("#standing", has_text="Unread").wait_for()
    page.reload()
    assert page.locator("#toast").inner_text() == "", "he who loads it again may have marked it unread"
    page.keyboard.press("u")
    page.wait_for_url(f"{hub.url}/messages?tab=feed")
    page.go_back()
    page.wait_for_url(f"{hub.url}/messages/one**")
    page.locator("#standing", has_text="Unread").wait_for()
    assert stands(mail, "one") == "unread", "so may he who comes back to it"
    page = watched.go("/messages/one")
    page.locator("#standing", has_text=READ).wait_for()
    page.locator("#toast", has_text="Marked as read.").wait_for()
    with page.expect_navigation():
        page.keyboard.press("U")
    page.locator("#standing", has_text="Unread").wait_for()
    assert stands(mail, "one") == "unread"
    assert [each["done"] for each in mail.json("GET", "/v1/audit", None)["acts"]] == ["change"] * 2, "what was undone"
    assert watched.complaints == []
    context.close()


def test_only_he_who_sees_a_message_of_his_own_reads_it(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("behind", kind="report", content="in a tab behind")
    mail.send("theirs", "commander", kind="report", content="for another")
    context = chromium.new_context()
    context.add_init_script(UNSEEN)
    watched = Watched(context, hub.url)
    page = watched.go("/messages/behind")
    page.wait_for_load_state("load")
    assert stands(mail, "behind") == "unread"
    page.evaluate("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.locator("#standing", has_text=READ).wait_for()
    context.close()
    context = chromium.new_context()
    watched = Watched(context, hub.url)
    page = watched.go("/messages/theirs?to=commander")
    assert page.locator("#says-form").count() == 1, "one may speak for it"
    assert page.locator("#says-form[data-unread]").count() == 0, "but to look is not to speak"
    context.close()


def test_without_javascript_a_button_says_so(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("plain", kind="report", content="no script")
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{hub.url}/messages/plain")
    assert stands(mail, "plain") == "unread"
    follow(page.get_by_role("button", name="Mark read"))
    assert "marked read" in page.inner_text("#toast")
    assert "Read" in page.inner_text("#standing")
    assert page.get_by_role("button", name="Mark read").count() == 0
    page.get_by_label("zone").fill("Asia/Tokyo")
    follow(page.get_by_role("button", name="local"))
    assert "+09:00" in page.inner_text(".trail")
    page.get_by_label("zone").fill("Mars/Olympus")
    follow(page.get_by_role("button", name="Asia/Tokyo"))
    assert "Unknown time zone" in page.inner_text("main")
    context.close()


def test_times_are_said_as_the_browser_has_them(chromium: Any, hub: HubProcess, mail: Furnisher) -> None:
    mail.send("timed", kind="report", content="when?")
    context = chromium.new_context(timezone_id="Asia/Tokyo", bypass_csp=True, viewport={"width": 360, "height": 740})
    watched = Watched(context, hub.url)
    page = watched.go("/messages/timed")
    assert " UTC" in page.locator(".trail .at").first.inner_text()
    follow(page.get_by_role("button", name="local"))
    page.locator(".trail .at", has_text="+09:00").first.wait_for()
    mail.json("POST", "/v1/messages/timed/state", {"state": "acknowledged", "reader": "ada"})
    came = page.locator(".trail li", has_text="acknowledged by ada")
    came.wait_for()
    assert "+09:00" in came.inner_text(), "what comes in live is in it, too"
    assert page.locator("text=UTC").all_inner_texts() == ["UTC"], "the button alone"
    for place in ("/messages/timed", "/charts", "/settings"):
        page = watched.go(place)
        page.evaluate(AXE)
        for scheme, rules in (("light", ALL), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme)
            assert wrong(page, rules) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
    page = watched.go("/messages?tab=feed")
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("From (Asia/Tokyo)").fill("2026-01-01T09:00")
    follow(page.get_by_role("button", name="Apply"))
    assert "since=2026-01-01T00%3A00%3A00Z" in page.url
    assert page.get_by_label("From (Asia/Tokyo)").input_value() == "2026-01-01T09:00"
    follow(page.get_by_role("button", name="UTC"))
    assert page.get_by_label("From (UTC)").input_value() == "2026-01-01T00:00"
    assert watched.complaints == []
    context.close()
