"""Hubs inside the test, asked as a browser would ask them."""

from __future__ import annotations

import html
import re
from typing import Any

from starlette.testclient import TestClient

from holdfast.hub.tokens import Wish
from tests.ui.furnishing import Furnisher

BROWSER = {"Accept": "text/html,application/xhtml+xml"}
SAME = {**BROWSER, "Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}


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

    def send(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        return self.client.post(path, data=fields, headers={**SAME, **headers}, follow_redirects=False)

    def forms(self, path: str) -> list[dict[str, str]]:
        """The hidden fields of each form of a page."""
        out = []
        for form in re.findall(r"<form.*?</form>", self.good(path), re.S):
            pairs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
            out.append({name: html.unescape(value) for name, value in pairs})
        return out


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
