"""A hub looks at its own records in the background, and says what it found."""

from __future__ import annotations

from typing import Any

from holdfast.hub.claims import Claims
from holdfast.hub.home import Home
from holdfast.hub.scanning import Scanning
from tests.flow.hubs import until
from tests.hub.conftest import Room
from tests.hub.pens import Pen


def change(home: Home, sql: str) -> None:
    """Changes rows as an intruder would."""
    home.corpus.write(lambda tx: tx.execute(sql))


def test_a_hub_scans_itself_and_says_what_it_found(room: Room, pen: Pen, home: Home) -> None:
    for number in range(40):
        pen.put(f"k{number}", f"value {number}")
    room.append(pen.segment())
    room.client.post("/sync/message", json={"content": "x"})
    scanning: Any = room.core.scanning
    assert scanning.turn(whole=True).findings == []
    assert scanning.progress.tip == home.corpus.last() == 41
    change(home, "DELETE FROM state WHERE key='k3'")
    change(home, "UPDATE rec SET version=9 WHERE pos=20")
    found = scanning.turn(whole=True).findings
    assert {(finding.check, finding.seq) for finding in found} == {("state", 4), ("chain", 20)}
    warnings = room.get("/readyz")["warnings"]
    assert any(text.startswith("the scan found: ") and "and 1 more" in text for text in warnings)
    metrics = room.client.get("/metrics").text
    assert "holdfast_scan_findings 2.0" in metrics
    assert "holdfast_scan_records_total 123.0" in metrics
    assert Scanning(home, 0, Claims(home.corpus, home.wall, "one")).progress.findings == found, (
        "whoever serves next knows it too"
    )


def test_the_hub_does_so_by_itself(room: Room, pen: Pen, home: Home) -> None:
    pen.put("k", 1)
    room.append(pen.segment())
    by_itself = Scanning(home, 0.02, Claims(home.corpus, home.wall, "one"))
    by_itself.start()
    until(lambda: by_itself.progress.tip == 1, "it came by")
    by_itself.stop()
