"""Charts and settings in a real browser: drawn in the page's own colours, small, and of use without JavaScript."""

from __future__ import annotations

from typing import Any

from tests.ui.conftest import Site, Watched, follow

INK = """() => {
  const canvas = document.querySelector('.plot canvas'), of = canvas.getContext('2d');
  const { data } = of.getImageData(0, 0, canvas.width * 0.06, canvas.height);
  const found = [];
  for (let n = 0; n < data.length; n += 4)
    if (data[n + 3] > 200) found.push((data[n] + data[n + 1] + data[n + 2]) / 3);
  return [Math.min(...found), Math.max(...found)];
}"""
"""The darkest and the brightest of what stands beside the first chart: the figures of its axis."""


def test_charts_are_drawn_from_their_tables_in_the_colours_of_the_page(watched: Watched, site: Site) -> None:
    sizes: list[int] = []
    page = watched.page
    page.on("response", lambda response: sizes.append(int(response.headers.get("content-length", 0))))
    page.emulate_media(color_scheme="light")
    watched.go("/charts?range=24h")
    page.locator(".chart canvas").nth(6).wait_for()
    assert page.locator(".chart").count() == 7
    assert len(watched.requests) <= 8
    assert sum(sizes) <= 100_000, sizes
    darkest, _ = page.evaluate(INK)
    page.evaluate("window.before = document.querySelector('.plot canvas')")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("() => ![null, window.before].includes(document.querySelector('.plot canvas'))")
    _, brightest = page.evaluate(INK)
    assert darkest < 140 < brightest, "axes are read in both"
    legend = page.locator(".chart").nth(1).locator(".u-legend .u-label").all_inner_texts()
    assert [each.strip() for each in legend][1:] == ["p50", "p95"]
    page.locator(".chart").nth(2).locator("summary").click()
    columns = page.locator(".chart").nth(2).locator("thead th").all_inner_texts()
    assert columns[0] == "From"
    assert {"laptop", "deck"} <= {*columns}
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_function("() => document.querySelector('.plot canvas').getBoundingClientRect().width < 360")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert watched.complaints == []
    assert watched.strangers == []


def test_without_javascript_charts_are_tables_and_rules_are_made(chromium: Any, site: Site) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/charts")
    follow(page.get_by_role("link", name="7 days"))
    assert page.url.endswith("range=7d")
    page.get_by_text("Writes as a table").click()
    assert page.locator("#c-writes ~ details tbody tr").count() == 42
    follow(page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings"))
    page.get_by_text("Make a rule").click()
    form = page.locator("form", has=page.get_by_role("button", name="Make this rule"))
    form.get_by_label("Name").fill("watch")
    form.get_by_label("Address", exact=False).first.fill("https://hooks.invalid/T0P")
    follow(form.get_by_role("button", name="Make this rule"))
    assert "whsec_" in page.locator(".once pre").inner_text()
    follow(page.get_by_role("link", name="Done"))
    rule = page.locator("article", has_text="watch")
    assert "webhook to https://hooks.invalid" in rule.inner_text()
    follow(rule.get_by_role("button", name="Silence watch"))
    assert "Silent" in page.locator("article", has_text="watch").inner_text()
    page.locator("summary", has_text="Remove watch").click()
    follow(page.get_by_role("button", name="Remove watch"))
    assert page.locator("article", has_text="watch").count() == 0
    context.close()
