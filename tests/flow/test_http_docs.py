"""What docs/ says of HTTP is true: each request on a page gets the answer on it, in order, from an empty hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.ui import pages as people
from tests.flow.hubs import HubProcess
from tests.house.doc_blocks import blocks

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("http.md", "storage.md")]
ANY = "…"


class Exchange(NamedTuple):
    line: int
    method: str
    path: str
    body: str
    status: int
    answer: Any


def exchanges(page: Path) -> Iterator[Exchange]:
    for block in blocks(page.read_text("utf-8")):
        if block.language == "http":
            request, _, answer = block.text.partition("\n\n")
            head, _, body = request.partition("\n")
            status, _, shown = answer.partition("\n")
            yield Exchange(block.line, *head.split(" "), body, int(status), json.loads(shown))  # type: ignore[misc, arg-type]


def alike(shown: Any, got: Any) -> bool:
    """Whether they are the same, but for what the page leaves open."""
    if shown == ANY:
        return got is not None
    if isinstance(shown, dict):
        return isinstance(got, dict) and set(shown) == set(got) and all(alike(shown[k], got[k]) for k in shown)
    if isinstance(shown, list):
        return isinstance(got, list) and len(shown) == len(got) and all(map(alike, shown, got))
    return bool(shown == got)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_exchange_on_the_page_is_as_it_is_shown(tmp_path: Path, page: Path) -> None:
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    with TestClient(create_app(HubDirectory(tmp_path / "hub", settle="acked", reserve=reserve))) as client:
        for each in exchanges(page):
            content = each.body.encode() or None
            answer = client.request(each.method, each.path, content=content)
            got = answer.json()
            assert answer.status_code == each.status, f"{page.name}:{each.line}: {answer.text}"
            assert alike(each.answer, got), f"{page.name}:{each.line} got {json.dumps(got)}"


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("jq"), reason="the page's examples are of curl and jq")
def test_every_shell_example_on_the_page_works(tmp_path: Path) -> None:
    blocks_of_shell = [block for block in blocks(PAGES[0].read_text("utf-8")) if block.language == "sh"]
    assert len(blocks_of_shell) >= 2
    (tmp_path / "report.pdf").write_bytes(b"%PDF" + bytes(5000))
    script = "set -euo pipefail\n" + "\n".join(block.text for block in blocks_of_shell)
    hub = HubProcess(tmp_path / "hub")
    try:
        environment = {**os.environ, "HUB": hub.url}
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        with urllib.request.urlopen(f"{hub.url}/sync/files?agent=recruiter-1") as answer:
            stored = json.load(answer)["files"]
    finally:
        hub.kill()
    assert done.returncode == 0, done.stderr
    assert [each["size"] for each in stored] == [5004, 5004]


def test_every_route_is_on_a_page(tmp_path: Path) -> None:
    home = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    app = create_app(home)
    home.close()
    page = "\n".join(each.read_text("utf-8") for each in PAGES)
    for_people = PAGES[0].with_name("ui.md").read_text("utf-8")
    for route in app.routes:
        raw = route.path  # type: ignore[attr-defined]
        if any(raw.removesuffix(".json") == each.path for each in people.PAGES):
            assert f"`{raw.removesuffix('.json').replace('{rest:path}', '…')}`" in for_people, raw
            continue
        path = raw.replace(":path}", "}")
        for method in route.methods - {"HEAD"} if path != "/v1/blobs/{digest}" else route.methods:  # type: ignore[attr-defined]
            named = re.search(rf"\b{method} {re.escape(path)}(?![\w/])", page)
            assert named or f"`{path}`" in page, f"{method} {path}"
