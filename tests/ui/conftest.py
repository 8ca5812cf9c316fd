"""A furnished hub in a process of its own, and the machine's Chromium to look at it."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.tokens import create
from tests.flow.hubs import HubProcess
from tests.services import missing, shared_postgres
from tests.ui.furnishing import Furnisher, figures
from tests.ui.inside import WISHES, Guarded, Inside

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def asker(url: str, token: str = "") -> Any:
    """Asks a hub over HTTP; what is not good raises."""

    def ask(method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        headers = {"Content-Type": kind, **({"Authorization": f"Bearer {token}"} if token else {})}
        request = urllib.request.Request(url + path, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    return ask


class Site:
    """A furnished hub: where it is, and what fills it."""

    def __init__(self, hub: HubProcess, *, hostile: bool = True) -> None:
        self.hub = hub
        self.url = hub.url
        self.furnisher = Furnisher(asker(hub.url))
        self.furnisher.everything()
        self.furnisher.rules()
        self.furnisher.artifact()
        self.furnisher.mail()
        self.furnisher.letters()
        if hostile:
            self.furnisher.hostile()

    @property
    def pages(self) -> list[str]:
        """One page of each kind."""
        return [
            "/",
            "/messages?tab=feed",
            "/messages?tab=feed&q=done&kind=report&time=24h",
            "/messages?tab=snoozed",
            "/messages/release-17?tab=feed",
            "/messages/build-17",
            "/messages/asked-17?sender=commander",
            "/threads/release-17",
            "/nodes",
            "/nodes/deck",
            "/agents",
            "/agents/recruiter-1",
            "/data",
            "/data/state",
            "/data/state?agent=recruiter-1",
            "/data/state/plan%2F00?agent=recruiter-1&diff=1..2",
            "/data/table%2Fleads/acme?agent=recruiter-1",
            "/data/table%2Fleads/acme?agent=recruiter-1&version=2&view=tree",
            "/data/vault/sealed?agent=synthesizer-1",
            "/integrity",
            "/backups",
            "/audit",
            "/sessions?deleted=1",
            "/artifacts",
            f"/artifacts/{self.furnisher.digest}",
            "/data/state?agent=recruiter-1&prefix=plan%2F",
            "/sessions",
            f"/sessions/{self.furnisher.session}",
            "/charts?range=24h",
            "/settings",
            "/data/nothing-here",
        ]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A furnished hub that wants no token."""
    place = tmp_path_factory.mktemp("ui") / "hub"
    figures(place)
    hub = HubProcess(place)
    try:
        yield Site(hub)
    finally:
        hub.kill()


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Starts the machine's browser with more options, driven by Playwright; nothing is downloaded.

    A module's own: where Playwright runs, `asyncio.run` of other tests in the same process does not, nor does a second.
    """
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        missing("Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield lambda *options: driver.chromium.launch(executable_path=path, args=["--no-sandbox", *options])


@pytest.fixture(scope="module")
def chromium(launch: Callable[..., Any]) -> Iterator[Any]:
    """The browser of a module."""
    browser = launch()
    yield browser
    browser.close()


class Watched:
    """A page of the browser that remembers whatever it asked of others, and whatever it complained of."""

    def __init__(self, context: Any, origin: str) -> None:
        self.page = context.new_page()
        self.strangers: list[str] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []

        def asked(request: Any) -> None:
            self.requests.append(request.url)
            if not request.url.startswith((origin, "data:")):
                self.strangers.append(request.url)

        self.page.on("request", asked)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.origin = origin

    def go(self, path: str) -> Any:
        """Goes to a path of the hub."""
        self.page.goto(self.origin + path, wait_until="load")
        return self.page


def follow(what: Any) -> None:
    """Clicks what leads to another page, or to this one anew, and returns when that one has loaded.

    A click returns when it was made: what is read, typed or gone back from at once may be on the page before.
    """
    with what.page.expect_navigation():
        what.click()


def type_at_once(page: Any, keys: str) -> None:
    """Types keys that are to come within a second: for the page no more time goes by, however long it takes."""
    page.clock.set_fixed_time(datetime.now(UTC))
    page.keyboard.type(keys)


@pytest.fixture
def watched(chromium: Any, site: Site) -> Iterator[Watched]:
    """A new page, in a context of its own."""
    context = chromium.new_context()
    yield Watched(context, site.url)
    context.close()


AXE = (Path(__file__).with_name("vendor") / "axe.min.js").read_text("utf-8")


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    """A hub that wants no token."""
    app = create_app(tmp_path / "hub", settle="acked")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Inside(client)


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
