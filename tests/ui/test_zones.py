"""Times in the zone that somebody chose: on every page and in every field, and in UTC everywhere else."""

from __future__ import annotations

import pytest

from holdfast.errors import UsageError
from holdfast.hub.ui import zones
from tests.ui.inside import Inside

STRANGE = ("", "Europe", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe/Berlin; x", "x" * 300, "utc\0")


def test_a_time_is_said_in_a_zone_with_its_distance_from_utc() -> None:
    winter, summer = "2026-03-29T00:59:59.103Z", "2026-03-29T01:00:00.000Z"
    assert zones.plain_time(winter) == "2026-03-29 00:59:59 UTC"
    assert zones.moment(winter) == "2026-03-29 00:59:59.103 UTC"
    with zones.read_in("Europe/Berlin"):
        assert zones.plain_time(winter) == "2026-03-29 01:59:59 +01:00"
        assert zones.plain_time(summer) == "2026-03-29 03:00:00 +02:00", "there was no hour between"
        assert zones.minute("2026-07-01T22:30:00Z") == "2026-07-02 00:30 +02:00"
        assert (zones.day_of("2026-07-01T22:30:00Z"), zones.hour_of("2026-07-01T22:30:00.000Z")) == (
            "2026-07-02",
            "00:30:00.000 +02:00",
        )
        assert zones.field("2026-07-01") == "2026-07-01T02:00:00", "an address is in UTC"
        assert zones.field("2026-07-01T10:00:00+05:30", "minutes") == "2026-07-01T06:30"
        assert zones.plain_time("no time at all") == "no time at all"
        assert zones.field("no time at all") == zones.field("") == ""
    with zones.read_in("Asia/Kolkata"):
        assert zones.minute("2026-07-01T22:30:00Z") == "2026-07-02 04:00 +05:30"
    assert zones.minute("2026-07-01T22:30:00Z") == "2026-07-01 22:30 UTC", "for as long as the page is made"


def test_what_is_typed_in_a_zone_is_asked_for_in_utc() -> None:
    typed = "who=ada&since=2026-11-01T10%3A00&until=2026-07-01T10%3A00%3A30&at=2026-11-01&zone=Europe%2FBerlin&q="
    assert zones.settled(typed) == "who=ada&since=2026-11-01T09%3A00%3A00Z&until=2026-07-01T08%3A00%3A30Z&at=2026-11-01"
    assert zones.settled("since=2026-11-01T10:00&timezone=1") is None
    assert zones.settled("since=2026-99-99T10:00&zone=UTC") == "since=2026-99-99T10%3A00", "whoever reads it says so"
    for name in STRANGE:
        with pytest.raises(UsageError):
            zones.settled(f"since=2026-11-01T10:00&zone={name.replace(';', '%3B')}")


def test_pages_are_in_the_zone_of_the_browser_and_addresses_in_utc(inside: Inside) -> None:
    inside.furnisher.everything()
    inside.furnisher.mail()
    then = "2026-11-12T09:00:00.000Z"
    assert "You see the state of 2026-11-12 09:00:00 UTC" in inside.good(f"/data?at={then}")
    form = next(each for each in inside.forms("/audit") if "zone" in each)
    chosen = inside.send(
        "/ui/scheme", {**form, "times": "local", "zone": "America/New_York", "back": f"/data?at={then}"}
    )
    assert (chosen.status_code, chosen.headers["location"]) == (303, f"/data?at={then}")
    assert "HttpOnly; SameSite=Strict" in chosen.headers["set-cookie"]
    page = inside.good(f"/data?at={then}")
    assert "You see the state of 2026-11-12 04:00:00 -05:00" in page
    assert (
        'As of (America/New_York) <input type="datetime-local" name="at" step="1" value="2026-11-12T04:00:00">' in page
    )
    assert inside.client.get(f"/data.json?at={then}").json()["at"] == then
    for path in ("/", "/messages?tab=feed", "/messages/build-17", "/nodes", "/audit", "/charts"):
        page = inside.good(path)
        assert 'data-zone="America/New_York"' in page, path
        assert "UTC" not in page.replace(">UTC</button>", "").replace("are in UTC whatever is chosen", ""), path
    typed = inside.page("/audit?who=&since=2026-11-12T04%3A00&zone=America%2FNew_York")
    assert (typed.status_code, typed.headers["location"]) == (303, "/audit?since=2026-11-12T09%3A00%3A00Z")
    assert 'value="2026-11-12T04:00:00"' in inside.good(typed.headers["location"])
    for place in (
        "/data/state?agent=reasoner-1&at=2026-11-12T04%3A00&zone=",
        "/messages?until=2026-11-12T04%3A00&zone=",
    ):
        moved = inside.page(f"{place}America%2FNew_York")
        assert "2026-11-12T09%3A00%3A00Z" in moved.headers["location"]
        assert inside.page(moved.headers["location"]).status_code == 200
    assert inside.page("/audit?since=2026-11-12T04:00&zone=Mars").status_code == 400
    for name in STRANGE:
        refused = inside.send("/ui/scheme", {**form, "times": "local", "zone": name})
        assert refused.status_code == 400, name
        assert "set-cookie" not in refused.headers
    inside.client.cookies.clear()
    for name in ("Mars/Olympus", "../../etc/passwd", "x" * 300):
        assert 'data-zone="UTC"' in inside.page("/audit", Cookie=f"holdfast_zone={name}").text


def test_a_snooze_until_a_time_is_until_then_in_the_zone_of_the_page(inside: Inside) -> None:
    inside.furnisher.send("m1", kind="report", content="later")
    token = next(each["form_token"] for each in inside.forms("/audit") if "form_token" in each)
    form = {"form_token": token, "what": "snooze", "ids": "m1", "until": "1d"}
    answer = inside.send("/messages/act", {**form, "when": "2099-01-01T00:00", "zone": "Asia/Kolkata"})
    assert answer.status_code == 303, answer.text
    shown = inside.client.get("/messages/m1.json").json()["standing"]
    assert shown["until"] == "2098-12-31T18:30:00.000Z"
    assert [each["until"] for each in shown["trail"]][-1] == shown["until"]
    assert inside.send("/messages/act", {**form, "when": "2099-01-01T00:00", "zone": "Mars"}).status_code == 400
