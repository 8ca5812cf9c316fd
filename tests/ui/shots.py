"""Writes a picture of every page, light and dark, wide and narrow: python -m tests.ui.shots DIRECTORY (make pictures).

The hub is the one that `holdfast demo` leaves: two nodes and three agents that read our own files, and a hub that was
killed half-way. What a demo of seconds has none of (a day's figures, questions to people, a session) is added.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import holdfast
from holdfast.cli.demo.command import Play
from holdfast.cli.settings import Settings
from tests.flow.hubs import HubProcess
from tests.ui.conftest import BROWSERS, Site
from tests.ui.furnishing import figures


def main(directory: Path) -> None:
    """Starts a hub, fills it, and looks at it."""
    from playwright.sync_api import sync_playwright

    directory.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="holdfast-pictures-"))
    play = Play(Settings(), home, Path(holdfast.__file__).parent, rate=20)
    play.run(6.0)
    figures(play.stage.hub_directory)
    hub = HubProcess(play.stage.hub_directory)
    path = next(found for name in BROWSERS if (found := shutil.which(name)))
    try:
        site = Site(hub, hostile=False)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for scheme in ("light", "dark"):
                for width in (1280, 390):
                    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
                    page = context.new_page()
                    for number, place in enumerate(site.pages):
                        page.goto(site.url + place)
                        name = place.strip("/").partition("?")[0].replace("/", "-").replace("%2F", "-") or "overview"
                        page.screenshot(
                            path=directory / f"{number:02}-{name[:40]}-{scheme}-{width}.png", full_page=True
                        )
                    context.close()
            browser.close()
    finally:
        hub.kill()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
