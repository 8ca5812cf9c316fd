"""Somebody with a browser that runs no script: reads pages and their twins, and sends the forms that stand on them."""

from __future__ import annotations

import html
import http.client
import json
import re
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

from tests.flow.hubs import HubProcess, until


class Visitor:
    """One who looks at a hub.

    Args:
        hub: which.
        token: his; empty: the hub asks for none.
    """

    def __init__(self, hub: HubProcess, token: str = "") -> None:
        self._hub, self._token = hub, token

    def ask(self, method: str, path: str, body: str = "") -> tuple[int, str, str]:
        """The status of an answer, its text, and where it leads; redirections are not followed."""
        headers = {"Accept": "text/html", "Origin": self._hub.url, "Sec-Fetch-Site": "same-origin"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with closing(http.client.HTTPConnection("127.0.0.1", self._hub.port, timeout=60)) as line:
            line.request(method, path, body or None, headers)
            answer = line.getresponse()
            return answer.status, answer.read().decode(), answer.headers["Location"] or ""

    def page(self, path: str) -> str:
        """A page's text; a line that a hub cuts as it stops is asked again, as browsers do."""
        try:
            status, text, _ = self.ask("GET", path)
        except ConnectionError:
            status, text, _ = self.ask("GET", path)
        assert status == 200, (path, status, text)
        return text

    def twin(self, path: str) -> Any:
        """What a page is made of."""
        return json.loads(self.page(path))

    def send(self, page: str, what: str, **fields: str) -> tuple[int, str]:
        """Sends the form of a page that does `what`; the status, and where it leads or what it says."""
        for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", self.page(page), re.S):
            pairs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
            found = {name: html.unescape(value) for name, value in pairs}
            if found.get("what") == what and all(found[name] == fields[name] for name in found if name in fields):
                where = re.search(r'action="([^"]*)"', form)
                assert where is not None
                status, text, leads = self.ask("POST", where[1], urlencode({**found, **fields}))
                return status, leads or text
        raise AssertionError(f"{page} has no form that does {what!r}")

    def run(self, page: str, what: str, kind: str = "", **fields: str) -> dict[str, Any]:
        """Sends a form that begins a run, waits until it has ended, and returns how it did."""
        kind = kind or what
        before = [run["begun"] for run in self.twin(f"{page}.json")["runs"] if run["kind"] == kind]
        status, where = self.send(page, what, **fields)
        assert status == 303, where
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            runs = self.twin(f"{page}.json")["runs"]
            found[:] = [r for r in runs if r["kind"] == kind and r["begun"] not in before and r["state"] != "running"]
            return bool(found)

        until(ended, f"the {kind} has ended", 60)
        return found[0]
