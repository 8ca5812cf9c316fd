"""The pages in a real browser: nothing from elsewhere, no complaint, usable by everybody, alive."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flow.hubs import HubProcess
from tests.hub.pens import Pen
from tests.ui.conftest import AXE, Site, Watched, asker, follow, type_at_once
from tests.ui.furnishing import Furnisher, hostile_places

ALL = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
"""All that a scheme can change: the rest is the same document."""


def wrong(page: Any, rules: dict[str, Any]) -> list[str]:
    """What axe finds on a page."""
    told = page.evaluate("rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", rules)
    return [f"{each['id']}: {node['html'][:120]}" for each in told["violations"] for node in each["nodes"]]


@pytest.mark.timeout(300)  # thirty pages, each looked at twice: on a machine with other things to do that takes a while
def test_every_page_is_for_everybody(chromium: Any, site: Site, tmp_path: Path) -> None:
    guarded = HubProcess(tmp_path / "hub", token="a-token")
    try:
        places = [(site.url, place) for place in site.pages]
        places += [(guarded.url, "/sign-in"), (guarded.url, "/sign-in?link=x")]
        found = looked_at(chromium, places)
    finally:
        guarded.kill()
    assert not found, json.dumps(found, indent=1)


def looked_at(chromium: Any, places: list[tuple[str, str]]) -> dict[str, list[str]]:
    """What is wrong with pages, for any eye, on a narrow screen."""
    found: dict[str, list[str]] = {}
    context = chromium.new_context(viewport={"width": 360, "height": 740}, bypass_csp=True)
    for origin, place in places:
        watched = Watched(context, origin)
        page = watched.go(place)
        page.evaluate(AXE)
        for scheme, rules in (("light", ALL), ("dark", COLOURS)):
            page.emulate_media(color_scheme=scheme)
            if bad := wrong(page, rules):
                found[f"{place} {scheme}"] = bad
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > 360:
            found[f"{place} width"] = [str(width)]
        page.close()
    context.close()
    return found


def test_nothing_is_asked_of_others_and_nothing_complains(watched: Watched, site: Site) -> None:
    for place in site.pages[:-1]:
        before = len(watched.requests)
        # Whatever a page asks for it asks for before its stream; so none of it is counted with the next page.
        with watched.page.expect_request(lambda request: "/ui/events" in request.url):
            page = watched.go(place)
        assert len(watched.requests) - before <= 8, watched.requests[before:]
        assert page.locator("h1").count() == 1, place
    assert watched.strangers == []
    assert watched.complaints == []


def test_hostile_texts_are_inert(watched: Watched, site: Site) -> None:
    for place in ["/", "/nodes", "/agents", "/data", *hostile_places(site.furnisher)[:14], *site.pages[-3:-1]]:
        page = watched.go(place)
        assert page.evaluate("window.owned") is None, place
        assert page.locator("main img, main script, main iframe, main template").count() == 0, place
    assert watched.strangers == []
    assert watched.complaints == []


def test_without_javascript_everything_is_read_and_done(chromium: Any, site: Site) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/")
    follow(page.get_by_role("navigation").get_by_role("link", name="Nodes"))
    assert page.locator("tr", has_text="deck").inner_text().count("Behind") == 1
    follow(page.get_by_role("navigation").get_by_role("link", name="Data"))
    follow(page.get_by_role("link", name="state", exact=True))
    follow(page.get_by_role("link", name="reasoner-1"))
    page.get_by_label("Begins with").fill("plan/1")
    follow(page.get_by_role("button", name="Show"))
    assert page.locator("tbody th a", has_text="plan/").all_inner_texts() == ["plan/10", "plan/11"]
    follow(page.get_by_role("button", name="dark"))
    assert page.locator("html").get_attribute("data-scheme") == "dark"
    assert page.get_by_label("Begins with").input_value() == "plan/1", "where one was"
    context.close()


def test_a_key_is_found_changed_and_brought_back_by_keyboard_alone(watched: Watched, site: Site) -> None:
    page = watched.go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.wait_for_url("**/#main")
    type_at_once(page, "gd")
    page.wait_for_url("**/data")  # and not just any: going to a place within the page is one, too

    def reach(text: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == text:
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{text} has no visible focus"
                return
        raise AssertionError(f"{text!r} cannot be reached")

    reach("table/leads")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    reach("acme")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    reach("Delete this key")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("sold")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert "It was deleted: sold" in page.inner_text("main")
    reach("Roll back")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert "the newest again" in page.inner_text("main")
    assert '"open": 4' in page.inner_text("pre")
    assert watched.complaints == []


def test_single_keys_can_be_turned_off(watched: Watched, site: Site) -> None:
    page = watched.go("/agents")
    follow(page.get_by_role("button", name="keys on"))
    type_at_once(page, "gn")
    follow(page.get_by_role("button", name="keys off"))
    assert page.url == f"{site.url}/agents"
    type_at_once(page, "gn")
    page.wait_for_url(f"{site.url}/nodes")


def test_what_happens_is_seen_at_once_and_after_a_break(chromium: Any, tmp_path_factory: Any) -> None:
    hub = HubProcess(tmp_path_factory.mktemp("live") / "hub")
    try:
        furnisher = Furnisher(asker(hub.url))
        context = chromium.new_context()
        watched = Watched(context, hub.url)
        nodes = Watched(context, hub.url)
        context.set_default_timeout(60_000)  # the longest that a page waits before it asks a hub again is ten seconds
        page, other = watched.go("/"), nodes.go("/nodes")
        pen = Pen("ada")
        pen.stamp = round(time.time() * 1000) << 16
        for number in range(3):
            pen.put(f"k{number}", number)
        furnisher.ship("laptop", [pen])
        page.locator(".records tbody tr").nth(2).wait_for()
        other.locator("tr", has_text="laptop").wait_for()
        assert page.locator(".records .key bdi:last-child").all_inner_texts() == ["k2", "k1", "k0"]
        page.locator(".tile", has_text="Nodes").locator(".figure", has_text="1 of 1").wait_for()

        hub.kill()
        hub.start()
        for number in range(3, 103):
            pen.put(f"k{number}", number)
        furnisher.hello("laptop", [pen], oldest_s=900)
        other.locator("tr", has_text="laptop").locator(".state", has_text="Behind").wait_for()
        furnisher.ship_from("laptop", pen, 4)
        newest = [f"k{number}" for number in range(102, 94, -1)]
        page.locator(".records tbody tr", has_text="k102").wait_for()
        assert page.locator(".records .key bdi:last-child").all_inner_texts() == newest, "in order, none twice"
        other.locator("tr", has_text="laptop").locator(".state", has_text="In sync").wait_for()
        page.wait_for_function("() => document.title.startsWith('Overview')")  # nothing needs anybody
        away = ("ERR_", "htmx:sse:error")  # while it was
        assert [each for each in watched.complaints if not any(part in each for part in away)] == []
        context.close()
    finally:
        hub.kill()


def test_eight_windows_load_and_live(chromium: Any, site: Site) -> None:
    context = chromium.new_context()
    pages = [context.new_page() for _ in range(8)]
    for page in pages:
        page.goto(f"{site.url}/nodes")
        page.locator("tr", has_text="deck").wait_for()
    context.close()


def test_a_stopping_hub_sends_its_watchers_home(chromium: Any, tmp_path_factory: Any) -> None:
    hub = HubProcess(tmp_path_factory.mktemp("stop") / "hub")
    try:
        context = chromium.new_context()
        page = context.new_page()
        with page.expect_response(lambda response: "/ui/events" in response.url):
            page.goto(f"{hub.url}/")
        began = time.monotonic()
        hub.stop()
        assert time.monotonic() - began < 10
        context.close()
    finally:
        hub.kill()


def test_a_name_in_the_home_network_is_no_lesser_place(launch: Callable[..., Any], tmp_path: Path) -> None:
    """Over plain HTTP a browser lacks what it gives secure places alone; nothing here asks for any of that."""
    hub = HubProcess(tmp_path / "hub", hosts=("holdfast.lan",))
    furnisher = Furnisher(asker(hub.url))
    furnisher.mail()
    browser = launch("--host-resolver-rules=MAP holdfast.lan 127.0.0.1")
    try:
        watched = Watched(browser.new_context(), f"http://holdfast.lan:{hub.port}")
        page = watched.go("/messages")
        assert not page.evaluate("window.isSecureContext")
        page.locator("input[name=at]").first.check()
        page.get_by_role("button", name="Acknowledge").first.click()
        page.locator("#toast button", has_text="Undo").wait_for()
        for place in ("/", "/nodes", "/data", "/charts", "/settings"):
            watched.go(place)
        assert watched.strangers == []
        assert watched.complaints == []
    finally:
        browser.close()
        hub.kill()


def test_the_address_is_the_view(watched: Watched, site: Site) -> None:
    place = "/data/table%2Fleads/acme?agent=recruiter-1&diff=1..3"
    page = watched.go(place)
    rows = page.locator("table.diff tbody tr").all_inner_texts()
    assert len(rows) == 3
    follow(page.get_by_role("navigation").get_by_role("link", name="Agents"))
    page.go_back()
    page.wait_for_url(site.url + place)
    assert page.locator("table.diff tbody tr").all_inner_texts() == rows
    assert watched.complaints == []
