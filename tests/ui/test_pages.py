"""The pages over HTTP, without a browser: what they answer, to whom, and what their forms do."""

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
from starlette.testclient import TestClient

import holdfast.hub.ui
from holdfast.clock import SYSTEM
from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.principal import SCOPES
from holdfast.hub.sign_ins import SignIn, digest_of
from holdfast.hub.tokens import Wish, create, revoke
from holdfast.hub.ui.pages import PAGES, ROWS
from holdfast.hub.ui.usage import Usage
from tests.hub.pens import Pen
from tests.services import shared_postgres
from tests.ui.furnishing import HOSTILE, Furnisher

BROWSER = {"Accept": "text/html,application/xhtml+xml"}
SAME = {**BROWSER, "Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
VENDORS = (Path(holdfast.hub.ui.__file__).parent / "static" / "vendor", Path(__file__).parent / "vendor")


class Inside:
    """A hub inside the test, asked as a browser would."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.core = client.app.state.core  # type: ignore[attr-defined]
        self.furnisher = Furnisher(self.ask)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        answer = self.client.request(method, path, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (200, 201), answer.text
        return answer.content

    def page(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={**BROWSER, **headers}, follow_redirects=False)

    def good(self, path: str) -> str:
        answer = self.page(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return str(answer.text)

    def send(self, path: str, fields: dict[str, str], **headers: str) -> Any:
        return self.client.post(path, data=fields, headers={**SAME, **headers}, follow_redirects=False)

    def forms(self, path: str) -> list[dict[str, str]]:
        """The hidden fields of each form of a page."""
        out = []
        for form in re.findall(r"<form.*?</form>", self.good(path), re.S):
            pairs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
            out.append({name: html.unescape(value) for name, value in pairs})
        return out


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A hub that wants no token."""
    app = create_app(tmp_path / "hub", settle="acked")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Inside(client)


class Guarded(Inside):
    """A hub that wants tokens; `texts` holds some."""

    def __init__(self, client: TestClient, texts: dict[str, str], ids: dict[str, str]) -> None:
        super().__init__(client)
        self.texts, self.ids = texts, ids

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        headers = {"Content-Type": kind, "Authorization": f"Bearer {self.texts['admin']}"}
        answer = self.client.request(method, path, content=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.content

    def sign_in(self, role: str) -> Any:
        self.client.cookies.clear()
        (form,) = (each for each in self.forms("/sign-in") if "next" in each)
        return self.send("/sign-in", {**form, "token": self.texts[role]})


WISHES = {
    "admin": Wish(kind="person", name="root", scopes=("admin",)),
    "reader": Wish(kind="person", name="ada"),
    "writer": Wish(kind="service", name="leads", agents=("recruiter-1",), scopes=("records:read", "records:write")),
    "public": Wish(kind="service", name="public", collections=("public/*",)),
    "blind": Wish(kind="service", name="scrape", scopes=("metrics:read",)),
}


@pytest.fixture(params=["directory", "database"])
def guarded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Guarded]:
    """A hub that wants tokens, in a directory and in a database."""
    place: Any = tmp_path / "hub"
    if request.param == "database":
        place = HubDatabase(shared_postgres().database(), settle="acked")
    app = create_app(place, settle="acked")
    core = app.state.core
    store = core.home.open_tokens()
    made = {role: create(store, wish) for role, wish in WISHES.items()}
    store.close()
    core.gate.tokens.refresh()
    core.gate._guarded = core.gate._wants_tokens()
    texts, ids = {role: text for role, (_, text) in made.items()}, {role: token.id for role, (token, _) in made.items()}
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Guarded(client, texts, ids)


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
    assert [re.sub(r"\.[0-9a-f]{16}\.", ".", name) for name in found] == [
        *("/ui/static/app.css", "/ui/static/app.js", "/ui/static/htmx.min.js"),
        *("/ui/static/hx-sse.min.js", "/ui/static/icon.svg"),
    ]
    size = len(page.encode())
    for name in found:
        answer = inside.client.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
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
    for place in ["/", "/nodes", "/agents", "/data", *hostile_places(inside.furnisher)]:
        text = inside.good(place)
        assert not any(each in text for each in HOSTILE if "<" in each), place
        read = Tags()
        read.feed(text)
        assert read.attributes <= KNOWN, place
        assert not read.bare_scripts, place
        assert all(link.startswith(("/", "#")) for link in read.links), place


KNOWN = {
    *("action", "charset", "class", "content", "d", "data-label", "data-scheme", "datetime", "defer", "disabled"),
    *(
        "aria-current",
        "aria-describedby",
        "aria-hidden",
        "aria-label",
        "aria-labelledby",
        "aria-pressed",
        "autocomplete",
    ),
    *("fill", "height", "hidden", "high", "href", "hx-sse:connect", "hx-swap", "id", "lang", "low", "max", "maxlength"),
    *("method", "min", "name", "optimum", "points", "preserveaspectratio", "rel", "required", "role", "scope", "src"),
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
        from holdfast.hub.ui.words import collection_url, key_url

        shown = inside.good(collection_url(collection, agent="dots"))
        for key in keys:
            place = key_url("dots", collection, key)
            assert html.escape(place).replace("&#39;", "'") in shown.replace("&#39;", "'"), (collection, key)
            assert f'"is": "{collection}|{key}"' in html.unescape(inside.good(place)), place
            assert not place.partition("?")[0].endswith(("/.", "/..", ".json"))


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
    monkeypatch.setattr("holdfast.hub.ui.usage.LOT", 3)
    monkeypatch.setattr("holdfast.hub.ui.usage.PATIENCE_S", -1.0)
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
        **{"total": 3, "in_sync": 2, "catching_up": 0, "behind": 1, "unreachable": 0, "at_risk": 40},
    }
    assert [each["where"] for each in overview["needs_you"]] == ["/nodes/deck", "/nodes/htpc"]
    assert '<span class="shape" aria-hidden="true">■</span> Behind' in inside.good("/nodes")
    inside.core.nodes["laptop"].seen_ms -= 3_600_000
    inside.core.nodes["deck"].seen_ms -= 3_600_000
    inside.core.nodes["htpc"].seen_ms -= 30 * 86_400_000
    told = {each["node"]: each["state"] for each in inside.client.get("/nodes.json").json()["nodes"]}
    assert told == {"deck": "behind", "laptop": "unreachable", "htpc": "inactive"}


# -- who may -----------------------------------------------------------------------------------------------------


def test_without_a_session_there_is_only_the_way_in(guarded: Guarded) -> None:
    for page in PAGES:
        path = page.path.replace("{rest:path}", "x")
        if page.needs == "" or page.path == "/ui/events":
            continue
        answer = guarded.client.request(page.method, path, headers=SAME, data={} if page.method == "POST" else None,
                                        follow_redirects=False)  # fmt: skip
        if page.method == "GET":
            assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={path}")
            assert guarded.client.get(path).status_code == 401, "programs are told"
            assert guarded.client.get(f"{path}.json").status_code == 401
        else:
            assert answer.status_code in (401, 403)
    assert guarded.page("/").headers["location"] == "/sign-in"
    assert guarded.page("/no/such").headers["location"] == "/sign-in?next=/no/such"
    assert guarded.client.get("/ui/events?page=overview").status_code == 401
    sign_in = guarded.good("/sign-in?next=/nodes")
    assert "<nav" not in sign_in, "a stranger learns nothing"


def test_each_role_sees_what_its_token_may(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    guarded.furnisher.json(
        *("POST", "/relay/immediate", {"agent_id": "recruiter-1", "table": "leads", "data": {"id": "acme", "n": 1}}),
    )
    pen = Pen("herald")
    pen.put("k", 1, collection="public/news")
    guarded.furnisher.ship("tower", [pen])
    for role in WISHES:
        assert guarded.sign_in(role).status_code == 303, role
        got = [guarded.page(path).status_code for path in ("/", "/nodes", "/agents", "/data", "/data/state")]
        assert got == {"blind": [403] * 5, "public": [200, 200, 200, 200, 403]}.get(role, [200] * 5), role
    guarded.sign_in("public")
    told = {path: guarded.client.get(f"/{path}.json").json() for path in ("overview", "nodes", "agents", "data")}
    text = repr(told)
    for hidden in ("laptop", "deck", "recruiter", "leads", "coder", "htpc", "vault"):
        assert hidden not in text, hidden
    assert told["overview"]["storage"]["records"] == 1
    assert [each["node"] for each in told["nodes"]["nodes"]] == ["tower"]
    assert guarded.page("/agents/recruiter-1").status_code == guarded.page("/agents/nobody").status_code == 404
    assert guarded.page("/nodes/laptop").status_code == 404
    assert set(SCOPES) >= {page.needs for page in PAGES if page.needs}


def test_a_session_is_for_pages_alone_and_ends_with_its_token(guarded: Guarded) -> None:
    cookie = guarded.sign_in("admin").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert guarded.texts["admin"] not in cookie
    assert guarded.page("/").status_code == 200
    assert "person root" in guarded.good("/")
    assert guarded.client.get("/v1/agents").status_code == 401, "the API does not look at cookies"
    assert guarded.client.get("/nodes.json").status_code == 200
    assert guarded.page("/sign-in").headers["location"] == "/"
    store = guarded.core.home.open_tokens()
    revoke(store, guarded.ids["admin"])
    store.close()
    guarded.core.gate.tokens.refresh()
    assert guarded.page("/").status_code == 303


def test_signing_out_ends_the_session_everywhere(guarded: Guarded) -> None:
    guarded.sign_in("reader")
    kept = dict(guarded.client.cookies)
    (form,) = (each for each in guarded.forms("/nodes") if list(each) == ["form_token"])
    assert guarded.send("/sign-out", {}).status_code == 403, "without the form's token"
    assert guarded.page("/nodes").status_code == 200
    assert guarded.send("/sign-out", form).headers["location"] == "/sign-in"
    guarded.client.cookies.update(kept)
    assert guarded.page("/nodes").status_code == 303, "the cookie that was kept is worth nothing"
    store = guarded.core.home.open_tokens()
    assert store.sign_ins().find(digest_of(next(iter(kept.values()))), "session") is None
    store.close()


def test_a_link_lets_one_in_once(guarded: Guarded) -> None:
    now, store = SYSTEM.now_ms(), guarded.core.home.open_tokens()
    links = store.sign_ins()
    links.add(SignIn(digest_of("good"), "link", guarded.ids["reader"], now, now + 60_000))
    links.add(SignIn(digest_of("late"), "link", guarded.ids["reader"], now - 9, now - 1))
    store.close()

    def come(link: str) -> Any:
        (form,) = (each for each in guarded.forms(f"/sign-in?link={link}&next=//evil.example") if "link" in each)
        return guarded.send("/sign-in", form)

    assert guarded.page("/").status_code == 303, "to look at it does not use it up"
    answer = come("good")
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), "and leads nowhere else"
    assert "person ada" in guarded.good("/")
    guarded.client.cookies.clear()
    for link in ("good", "late", "never"):
        answer = come(link)
        assert answer.status_code == 401
        assert "holdfast ui link" in answer.text
    assert guarded.page("/").status_code == 303


def test_who_is_wrong_too_often_waits(guarded: Guarded) -> None:
    (form,) = (each for each in guarded.forms("/sign-in") if "next" in each)
    got = [guarded.send("/sign-in", {**form, "token": f"hf_person_x_{n}"}).status_code for n in range(11)]
    assert got == [401] * 10 + [429]
    answer = guarded.send("/sign-in", {**form, "token": guarded.texts["admin"]})
    assert answer.status_code == 429
    assert answer.headers["retry-after"]


def test_no_other_page_acts_here(guarded: Guarded) -> None:
    guarded.sign_in("admin")
    (form,) = (each for each in guarded.forms("/") if "back" in each)
    assert guarded.send("/ui/scheme", {**form, "scheme": "dark"}).status_code == 303
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert guarded.send("/ui/scheme", {**form, "scheme": "dark"}, **headers).status_code == 403, headers
    assert guarded.send("/ui/scheme", {**form, "form_token": "0" * 64}).status_code == 403
    answer = guarded.client.post("/ui/scheme", content=b"{}", headers={**SAME, "Content-Type": "application/json"})
    assert answer.status_code == 415
    admins = form["form_token"]
    guarded.sign_in("reader")
    assert guarded.send("/ui/scheme", {**form, "form_token": admins}).status_code == 403, "a form of another session"


def test_colours_stay_as_they_were_chosen(inside: Inside) -> None:
    (form,) = (each for each in inside.forms("/data?after=x") if "back" in each)
    answer = inside.send("/ui/scheme", {**form, "scheme": "dark"})
    assert answer.headers["location"] == "/data?after=x"
    assert 'data-scheme="dark"' in inside.good("/nodes")
    for back in ("//evil.example", "/\\evil.example", "https://evil.example/x"):
        assert inside.send("/ui/scheme", {**form, "back": back}).headers["location"] in ("/", "/x")


# -- changing ----------------------------------------------------------------------------------------------------


def test_a_key_is_deleted_with_a_reason_and_comes_back(guarded: Guarded) -> None:
    def put(n: int) -> None:
        row = {"agent_id": "recruiter-1", "table": "leads", "data": {"id": "acme", "n": n}}
        guarded.furnisher.json("POST", "/relay/immediate", row)

    put(1)
    put(2)
    place = "/data/table%2Fleads/acme?agent=recruiter-1"
    guarded.sign_in("reader")
    assert "records:write" in guarded.good(place)
    assert len(guarded.forms(place)) < 5
    guarded.sign_in("writer")
    forms = {form["what"]: form for form in guarded.forms(place) if "what" in form}
    assert guarded.send("/data/change", forms["delete"]).status_code == 400, "it needs a reason"
    done = guarded.send("/data/change", {**forms["delete"], "reason": "<b>a duplicate</b>"})
    assert done.status_code == 303
    assert "&lt;b&gt;a duplicate&lt;/b&gt;" in guarded.good(done.headers["location"])
    assert guarded.send("/data/change", {**forms["delete"], "reason": "again"}).status_code == 409
    assert guarded.send("/data/change", forms["rollback"]).status_code == 409, "it is not as it was shown"
    (form,) = (each for each in guarded.forms(place) if each.get("version") == "1")
    assert guarded.send("/data/change", form).status_code == 303
    told = guarded.client.get("/data/table%2Fleads/acme.json?agent=recruiter-1").json()
    assert told["shown_value"]["value"] == {"id": "acme", "n": 1}
    assert told["shown"]["author"] == "leads"
    assert [each["gone"] for each in told["versions"]] == [False, True, False, False]
    assert told["versions"][1]["reason"] == "<b>a duplicate</b>"


def test_what_is_not_the_hubs_is_not_changed_here(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    guarded.furnisher.talk()
    row = {"agent_id": "other-1", "table": "leads", "data": {"id": "acme", "n": 1}}
    guarded.furnisher.json("POST", "/relay/immediate", row)
    before = guarded.core.corpus.last()
    session = f"{guarded.furnisher.session}/session"
    for role, agent, collection, key in (
        ("admin", "recruiter-1", "state", "plan/01"),
        ("admin", "recruiter-1", "sessions", session),
        ("writer", "other-1", "table/leads", "acme"),
    ):
        guarded.sign_in(role)
        (token,) = {each["form_token"] for each in guarded.forms("/")}
        told = guarded.client.get("/data.json", params={"agent": agent, "collection": collection, "key": key}).json()
        assert not told["may_change"]
        assert told["why_not"]
        asked = {"form_token": token, "agent": agent, "collection": collection, "key": key, "what": "delete"}
        answer = guarded.send("/data/change", {**asked, "expect": told["shown"]["etag"], "reason": "because"})
        assert answer.status_code == 403, (role, answer.text)
    assert guarded.core.corpus.last() == before
