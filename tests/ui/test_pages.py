"""The pages over HTTP, without a browser: what they answer, and that it is safe to look at."""

from __future__ import annotations

import html
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import holdfast.hub.ui
from holdfast import records
from holdfast.clock import SYSTEM
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.usage import Usage
from holdfast.hub.ui.words import collection_url, key_url, named_url
from holdfast.log.erasure import drafts_of, mark_of
from tests.hub.pens import Pen
from tests.ui.furnishing import HOSTILE
from tests.ui.inside import BROWSER, Inside

VENDORS = (Path(holdfast.hub.ui.__file__).parent / "static" / "vendor", Path(__file__).parent / "vendor")


# -- what is answered -------------------------------------------------------------------------------------------


def test_a_hub_that_nobody_looks_at_loads_no_page(tmp_path: Path) -> None:
    code = (
        "import sys; from holdfast.hub.app import create_app; create_app(sys.argv[1]);"
        "print([m for m in sys.modules if m.split('.')[0] == 'jinja2' or m.startswith('holdfast.hub.ui.')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "hub")], capture_output=True, text=True)
    assert done.stdout.strip() == "['holdfast.hub.ui.routes', 'holdfast.hub.ui.pages', 'holdfast.hub.ui.live']"


def test_the_front_door_is_the_overview_to_browsers_alone(inside: Inside) -> None:
    told = inside.client.get("/")
    assert told.json()["service"] == "storage_service"
    assert "<h1>Overview</h1>" in inside.good("/")
    assert "holdfast init" in inside.good("/nodes"), "an empty state names the next command"
    assert "holdfast put" in inside.good("/data")
    assert "holdfast --agent" in inside.good("/agents")
    assert "POST /storage/sessions" in inside.good("/sessions")


def test_every_page_is_safe_and_every_twin_is_its_data(inside: Inside) -> None:
    inside.furnisher.everything()
    places = {
        "/": "/overview.json",
        "/nodes": "/nodes.json",
        "/nodes/deck": "/nodes/deck.json",
        "/agents": "/agents.json",
        "/agents/recruiter-1": "/agents/recruiter-1.json",
        "/data": "/data.json",
        "/data/state?agent=recruiter-1": "/data/state.json?agent=recruiter-1",
        "/data/table%2Fleads/acme?diff=1..4": "/data/table%2Fleads/acme.json?diff=1..4",
        "/sessions": "/sessions.json",
        f"/sessions/{inside.furnisher.session}": f"/sessions/{inside.furnisher.session}.json",
    }
    for place, twin in places.items():
        answer = inside.page(place)
        assert answer.status_code == 200, answer.text
        area = "/" + place.partition("?")[0].split("/")[1]
        assert f'<a href="{area}" aria-current="page">' in answer.text, "the list of pages says which it is"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        for name, value in (
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
        ):
            assert answer.headers[name] == value
        assert f'rel="alternate" type="application/json" href="{html.escape(twin)}"' in answer.text
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", answer.text), "nothing inline"
        told = inside.client.get(twin)
        assert told.status_code == 200
        assert told.headers["content-type"] == "application/json"
        shown = html.unescape(answer.text)
        for text in _texts(told.json()):
            assert text in shown, (place, text)


UNSHOWN = {"cursor", "state", "where", "after", "before", "what", "etag", "at", "agents", "about"}
"""What a page shows in other words, or further on."""


def _texts(value: Any, name: str = "") -> Iterator[str]:
    """The texts of a twin that its page shows as they are."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, key)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, name)
    elif isinstance(value, str) and name not in UNSHOWN:
        yield value.replace("\n", "\\n") if name == "" else value


def test_no_link_leads_nowhere(inside: Inside) -> None:
    inside.furnisher.everything()
    known, left = {"/"}, ["/"]
    while left:
        place = left.pop()
        text = inside.client.get(place, headers=BROWSER).text
        for link in re.findall(r'(?:href|src)="([^"#]+)', text):
            link = html.unescape(link)
            if link in known:
                continue
            known.add(link)
            answer = inside.page(link)
            assert answer.status_code == 200, (place, link, answer.text)
            if answer.headers["content-type"].startswith("text/html") and link != "/docs":
                left.append(link)
    assert len(known) > 100


def test_errors_are_pages_to_browsers_and_json_to_others(inside: Inside) -> None:
    for path, status in (
        ("/no/such/place", 404),
        ("/nodes/nobody", 404),
        ("/agents/nobody", 404),
        ("/data/nothing", 404),
        ("/data/nothing/k?agent=x", 404),
        ("/data?key=k", 400),
        ("/data/state/k?agent=x&diff=1-2", 404),
        ("/sessions/session_none", 404),
        ("/sessions?after=never", 400),
        ("/nodes?what=1", 400),
        ("/ui/static/app.0000.css", 404),
        ("/v1/latest?agent=a&key=k", 404),
    ):
        page, told = inside.page(path), inside.client.get(path)
        assert (page.status_code, told.status_code) == (status, status), path
        assert page.headers["content-type"].startswith("text/html")
        assert 'role="alert"' in page.text
        assert told.json()["error"]["message"] in html.unescape(page.text), path
        assert "content-security-policy" in page.headers


def test_the_files_of_pages_never_change_under_a_name(inside: Inside) -> None:
    page = inside.good("/")
    found = sorted(set(re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page)))
    assert sorted(re.sub(r"\.[0-9a-f]{16}\.", ".", name) for name in found) == [
        *("/ui/static/app.css", "/ui/static/app.js", "/ui/static/icon.svg"),
        "/ui/static/live.js",
    ]
    size = len(page.encode())
    for name in found:
        answer = inside.client.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        plain = inside.client.get(name, headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content
        assert "content-encoding" not in plain.headers
        assert int(answer.headers["content-length"]) < len(plain.content)
        size += len(answer.content)
    assert size < 100_000, "the first page has a budget"
    assert len(found) < 8


@pytest.mark.parametrize("folder", VENDORS, ids=["shipped", "for tests"])
def test_what_is_of_others_is_what_they_made(folder: Path) -> None:
    import hashlib

    listed = {each["path"]: each for each in tomllib.loads((folder / "VENDOR.toml").read_text("utf-8"))["file"]}
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.name != "VENDOR.toml")
    for name, each in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == each["sha256"], name
        assert each["licence"]
        assert each["version"]
        assert each["package"]


def test_hostile_names_and_values_are_shown_and_do_nothing(inside: Inside) -> None:
    from tests.ui.furnishing import hostile_places

    inside.furnisher.talk()
    inside.furnisher.hostile()
    for place in ["/", "/messages?tab=feed", "/nodes", "/agents", "/data", *hostile_places(inside.furnisher)]:
        text = inside.good(place)
        assert not any(each in text for each in HOSTILE if "<" in each), place
        read = Tags()
        read.feed(text)
        assert read.attributes <= KNOWN, place
        assert not read.bare_scripts, place
        assert all(link.startswith(("/", "#")) for link in read.links), place


KNOWN = {
    *(
        "action",
        "charset",
        "class",
        "content",
        "d",
        "data-after",
        "data-as-of",
        "data-counts",
        "data-keys",
        "data-label",
        "data-mark",
        "data-rows",
        "data-searched",
        "data-scheme",
        "datetime",
        "defer",
        "disabled",
    ),
    *("checked", "for", "list", "open", "placeholder", "selected", "size", "data-zone", "data-zone-here"),
    *(
        "aria-current",
        "aria-describedby",
        "aria-hidden",
        "aria-label",
        "aria-labelledby",
        "aria-pressed",
        "autocomplete",
    ),
    *(
        "fill",
        "height",
        "hidden",
        "high",
        "href",
        "hx-config",
        "hx-sse:connect",
        "hx-swap",
        "id",
        "lang",
        "low",
        "max",
        "maxlength",
    ),
    *("method", "min", "name", "optimum", "points", "preserveaspectratio", "rel", "required", "role", "scope", "src"),
    *("open", "rows", "selected", "spellcheck", "start"),
    *("step", "stroke", "stroke-linecap", "stroke-width", "tabindex", "title", "type", "value", "vector-effect"),
    *("viewbox", "width"),
}
"""Every attribute that our pages have; whatever is not among them came out of a value."""


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.bare_scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        self.bare_scripts += tag == "script" and "src" not in dict(attrs)


def test_names_that_addresses_cannot_say_are_found_all_the_same(inside: Inside) -> None:
    pen = Pen("dots")
    keys = [".", "..", "a.json", "", "a/b", "%2e%2e", "a?b#c", "ünï", "a b", "x/"]
    for collection in ("c", "c/d", "..", "v.json"):
        for key in keys:
            pen.put(key, {"is": f"{collection}|{key}"}, collection=collection)
    inside.furnisher.ship("n", [pen])
    for collection in ("c", "c/d", "..", "v.json"):
        shown = inside.good(collection_url(collection, agent="dots"))
        for key in keys:
            place = key_url("dots", collection, key)
            assert html.escape(place).replace("&#39;", "'") in shown.replace("&#39;", "'"), (collection, key)
            assert f'"is": "{collection}|{key}"' in html.unescape(inside.good(place)), place
            assert not place.partition("?")[0].endswith(("/.", "/..", ".json"))


def test_agents_and_nodes_with_such_names_have_pages(inside: Inside) -> None:
    for name in (".", "..", "a.json", "a/b", "?x=1", "-"):
        pen = Pen(name)
        pen.put("k", name)
        inside.furnisher.ship(name, [pen])
    for what in ("agents", "nodes"):
        shown = inside.good(f"/{what}")
        for name in (".", "..", "a.json", "a/b", "?x=1", "-"):
            place = named_url(what, name)
            assert f'href="{html.escape(place)}"' in shown, place
            text = inside.good(place)
            assert f"<h1><bdi>{html.escape(name)}</bdi></h1>" in text, place
            twin = re.search(r'rel="alternate" type="application/json" href="([^"]+)"', text)
            assert twin
            told = inside.client.get(html.unescape(twin[1])).json()
            assert told[what.removesuffix("s")][what.removesuffix("s")] == name


# -- lists, the past ---------------------------------------------------------------------------------------------


def test_lists_come_in_pages_and_miss_nothing(inside: Inside) -> None:
    pens = [Pen(f"agent-{number:03}") for number in range(ROWS + 20)]
    for number, pen in enumerate(pens):
        pen.put("k", number, collection=f"col-{number:03}")
    for number in range(2 * ROWS + 5):
        pens[0].put(f"key-{number:03}", number)
    for start in range(0, len(pens), 20):
        inside.furnisher.ship("n", pens[start : start + 20])

    def walk(place: str, pattern: str) -> list[str]:
        found: list[str] = []
        while place:
            text = inside.good(place)
            found += re.findall(pattern, text)
            following = re.search(r'href="([^"]+)" rel="next"', text)
            place = html.unescape(following[1]) if following else ""
        return found

    assert walk("/agents", r'scope="row"><a href="/agents/([\w-]+)"') == [pen.agent for pen in pens]
    assert walk("/data", r'scope="row"><a href="/data/(col-\d+)"') == [f"col-{n:03}" for n in range(len(pens))]
    keys = walk("/data/state?agent=agent-000", r'href="/data/state/(key-\d+)\?')
    assert keys == [f"key-{number:03}" for number in range(2 * ROWS + 5)]
    assert walk("/data/state?agent=agent-000&prefix=key-10", r'href="/data/state/(key-\d+)\?') == keys[100:105]


def test_a_key_is_shown_as_it_was_and_says_what_changed(inside: Inside) -> None:
    change = {"agent_id": "a", "table": "t", "data": {"id": "k", "list": [1, 2], "same": "x", "old": True}}
    inside.furnisher.json("POST", "/relay/immediate", change)
    first = inside.client.get("/data/table%2Ft/k.json").json()["shown"]["time"]
    while SYSTEM.now_ms() <= _ms(first) + 1:
        time.sleep(0.001)
    change["data"] = {"id": "k", "list": [1, 3, 4], "same": "x", "new": 1}
    inside.furnisher.json("POST", "/relay/immediate", change)
    told = inside.client.get("/data/table%2Ft/k.json?diff=1..2").json()
    assert {(each["path"], each["what"], each["before"], each["after"]) for each in told["diff"]} == {
        ("list[1]", "changed", 2, 3),
        ("list[2]", "added", None, 4),
        ("old", "removed", True, None),
        ("new", "added", None, 1),
    }
    assert [each["version"] for each in told["versions"]] == [2, 1]
    then = inside.client.get("/data/table%2Ft/k.json", params={"at": first}).json()
    assert (then["shown"]["version"], then["shown_value"]["value"]["list"]) == (1, [1, 2])
    assert inside.client.get("/data/table%2Ft/k.json?version=1").json()["shown_value"] == then["shown_value"]
    assert "Back to now" in inside.good("/data/table%2Ft/k?version=1")
    before = inside.client.get("/data/table%2Ft/k.json?at=2001-01-01T00:00").json()
    assert before["shown"] is None
    assert "It had no value then" in inside.good("/data/table%2Ft/k?at=2001-01-01T00:00")


def _ms(iso: str) -> int:
    from holdfast.clock import parse_time

    return parse_time(iso)


def test_what_was_erased_says_so_and_is_nowhere(inside: Inside) -> None:
    pen = Pen("ada")
    said = pen.put("k", {"secret": "swordfish"})
    inside.furnisher.ship("n", [pen])
    place = "/data/state/k?agent=ada"
    assert "swordfish" in inside.good(place)
    for draft in drafts_of([], [mark_of(said)], "asked to"):
        pen.write("", draft.fmt, draft.payload, kind=records.REDACT, flags=0)
    inside.furnisher.ship("n", [pen])
    assert "Erased." in inside.good(place)
    for twin in ("/data/state/k.json?agent=ada", "/overview.json", "/agents/ada.json", "/data/state.json?agent=ada"):
        assert b"swordfish" not in inside.client.get(twin).content
    assert inside.client.get("/data/state.json?agent=ada").json()["keys"][0]["note"] == "erased"


def test_what_is_sealed_or_large_says_so(inside: Inside) -> None:
    inside.furnisher.nodes()
    told = inside.client.get("/data/vault/sealed.json").json()
    assert told["shown_value"]["missing"] == "sealed"
    assert "Sealed." in inside.good("/data/vault/sealed")
    row = {"agent_id": "a", "table": "t", "data": {"id": "big", "text": "x" * 300_000}}
    inside.furnisher.json("POST", "/relay/immediate", row)
    assert inside.client.get("/data/table%2Ft/big.json").json()["shown_value"]["missing"] == "large"
    assert len(inside.good("/data/table%2Ft/big")) < 20_000


def test_a_large_hub_is_counted_in_lots_and_says_how_far_it_is(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.furnisher.nodes()
    monkeypatch.setattr("holdfast.hub.ui.counting.LOT", 3)
    monkeypatch.setattr("holdfast.hub.ui.counting.PATIENCE_S", -1.0)
    first = inside.client.get("/overview.json").json()["storage"]
    assert first["counted"] < 1
    assert "Still counting" in inside.good("/agents")
    while (now := inside.client.get("/overview.json").json()["storage"])["counted"] < 1:
        pass
    assert now["records"] == inside.core.corpus.last() > first["records"]
    assert Usage(inside.core).done == 0.0


# -- nodes -------------------------------------------------------------------------------------------------------


def test_nodes_stand_as_they_said(inside: Inside) -> None:
    inside.furnisher.nodes()
    told = {each["node"]: each for each in inside.client.get("/nodes.json").json()["nodes"]}
    assert {name: each["state"] for name, each in told.items()} == {
        "deck": "behind",
        "laptop": "in-sync",
        "htpc": "in-sync",
    }
    assert (told["deck"]["at_risk"], told["htpc"]["clock_off"], told["laptop"]["clock_off"]) == (40, True, False)
    overview = inside.client.get("/overview.json").json()
    assert overview["nodes"] == {
        **{"total": 3, "in_sync": 2, "catching_up": 0, "behind": 1, "unreachable": 0, "paused": 0, "at_risk": 40},
    }
    assert [each["where"] for each in overview["needs_you"]] == ["/nodes/deck", "/nodes/htpc"]
    assert '<span class="shape" aria-hidden="true">■</span> Behind' in inside.good("/nodes")
    inside.core.nodes["laptop"].seen_ms -= 3_600_000
    inside.core.nodes["deck"].seen_ms -= 3_600_000
    inside.core.nodes["htpc"].seen_ms -= 30 * 86_400_000
    told = {each["node"]: each["state"] for each in inside.client.get("/nodes.json").json()["nodes"]}
    assert told == {"deck": "behind", "laptop": "unreachable", "htpc": "inactive"}
