"""`holdfast ui link`: one way in, once; and none that would lock others out."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tests.cli.conftest import Run, wait_for
from tests.cli.test_hub import Server, server

__all__ = ["server"]


class Browser:
    """Follows links and sends forms, with cookies."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open

    def ask(self, place: str, fields: dict[str, str] | None = None) -> str:
        """The page at a place, or what comes of a form."""
        data = urllib.parse.urlencode(fields).encode() if fields is not None else None
        request = urllib.request.Request(urllib.parse.urljoin(self.url, place), data, {"Accept": "text/html"})
        try:
            with self._open(request, timeout=30) as answer:
                found: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                found = error.read()
        return found.decode()

    def come(self, link: str) -> str:
        """Goes by a link, and presses its button."""
        page = self.ask(link)
        fields = dict(re.findall(r'type="hidden" name="(form_token|next|link)" value="([^"]*)"', page))
        return self.ask("/sign-in", fields)


def test_a_link_signs_in_once_on_a_hub_that_runs(empty: Run, server: Server, home: Path) -> None:
    data = ("--data", server.home / "hub")
    server.start()
    open_hub = empty("ui", "link", *data, "--url", server.url)
    assert (open_hub.code, open_hub.text) == (0, f"{server.url}\n")
    assert empty("token", "ls", *data, "--all", "--json").json["tokens"] == [], "the hub stays open"
    assert empty("token", "create", *data, "--kind", "person", "--name", "root", "--scope", "admin").code == 0
    visitor = Browser(server.url)
    wait_for(lambda: "<h1>Sign in</h1>" in visitor.ask("/"))

    told = empty("ui", "link", *data, "--url", server.url, "--name", "ada", "--json").json
    assert told["url"].startswith(f"{server.url}/sign-in?link=")
    assert "<h1>Overview</h1>" in visitor.come(told["url"])
    assert "person ada" in visitor.ask("/nodes")
    assert "was used already" in Browser(server.url).come(told["url"])
    assert empty("token", "revoke", *data, told["token"]).code == 0
    wait_for(lambda: "<h1>Sign in</h1>" in visitor.ask("/"))

    admin = Browser(server.url)
    known = empty("token", "ls", *data, "--json").json["tokens"][0]["id"]
    assert "person root" in admin.come(empty("ui", "link", *data, "--url", server.url, "--token", known).text.strip())
    gone = empty("ui", "link", *data, "--token", told["token"], "--json").error
    assert (gone["code"], "token ls" in gone["hint"]) == ("not_found", True)
