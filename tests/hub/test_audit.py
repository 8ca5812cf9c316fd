"""The audit trail of a hub: asked for over HTTP, cut where that is wanted, and taken along by a hub that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.clock import SYSTEM
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor, Wanted
from holdfast.hub.routes_audit import ActShown, act_of, shown
from tests.flow.hubs import HubProcess, until
from tests.hub.conftest import Room
from tests.hub.lines import Line

DAY_MS = 86_400_000
ROOT = Actor(kind="person", who="root", token="t1", via=acts.PAGE)
LINK = bytes(range(32))


def done(number: int, at_ms: int, **more: Any) -> Act:
    """Something that was done."""
    return Act(by=ROOT, what=acts.CHANGE, about=f"thing {number}", detail={"n": str(number)}, at_ms=at_ms, **more)


def targets(room: Room, **query: Any) -> list[str]:
    """What was acted on, the newest first, page by page."""
    found, before = list[str](), ""
    while True:
        page = room.get("/v1/audit", limit=1000, before=before, **query)
        found += [each["target"] for each in page["acts"]]
        if page["next"] is None:
            return found
        before = page["next"]


def test_the_trail_is_cut_only_if_somebody_wants_it_and_says_so(room: Room) -> None:
    audit, now = room.core.audit, SYSTEM.now_ms()
    audit.store.add([done(n, now - n * DAY_MS) for n in range(2_400)])
    cut = room.client.portal.call  # type: ignore[union-attr]
    cut(audit.shorten, 0.0)
    assert len(targets(room)) == 2_400, "for ever, unless somebody says otherwise"
    assert targets(room, since=(now - 2 * DAY_MS) / 1000, who="root") == ["thing 0", "thing 1", "thing 2"]
    for name in ("since", "until"):
        assert room.client.get("/v1/audit", params={name: ""}).status_code == 400, "a time that was lost on its way"
    cut(audit.shorten, 30.5 * 86_400)
    left = targets(room)
    assert left[0].startswith("2,369 acts from before "), left[0]
    assert left[1:] == [f"thing {n}" for n in range(31)]
    cut(audit.shorten, 30.5 * 86_400)
    assert targets(room) == left, "once a day"
    cut(audit.shorten, 10.5 * 86_400)
    assert len(targets(room)) == 1 + 11 + 1, "and at once by another setting"
    assert room.client.get("/v1/audit?before=x").status_code == 400


def test_acts_of_another_hub_are_kept_once_by_whichever_way_they_come(room: Room) -> None:
    store = room.core.audit.store
    mine = [done(1, 1_000), done(2, 1_000), done(2, 1_001), done(3, 2_000, ref=LINK)]
    store.add(mine[:2])
    told = [msgspec.convert(msgspec.to_builtins(shown(each)), ActShown) for each in mine]
    for _ in range(2):
        store.take([act_of(each) for each in told])
    found = [shown(each) for each in store.page(Wanted(limit=100))]
    assert sorted(found, key=lambda each: each.time + each.target) == told
    # What the log tells of the same record says less, and does not come instead.
    log = Act(by=Actor(kind="agent", who="root", via=acts.LOG), what=acts.DELETE, about="x", at_ms=2_000, ref=LINK)
    store.add([log])
    assert len(store.page(Wanted(limit=100))) == 4
    assert [each.by.via for each in store.page(Wanted(limit=1))] == [acts.PAGE]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., HubProcess]]:
    """Starts a hub in a directory by this name; all are ended."""
    begun: list[HubProcess] = []

    def make(name: str, **options: Any) -> HubProcess:
        begun.append(HubProcess(tmp_path / name, **options))
        return begun[-1]

    yield make
    for each in begun:
        each.kill()


def test_a_standby_takes_the_trail_along(start: Callable[..., HubProcess], tmp_path: Path) -> None:
    with HomeOf(tmp_path / "first") as store:
        store.add([done(n, SYSTEM.now_ms() - n * 1_000) for n in range(1_200)])
    first = start("first", scan_s=0.0)
    standby = start("standby", follow=first.url, scan_s=0.0)

    def held(hub: HubProcess) -> list[str]:
        with closing(Line(hub.url)) as line:
            page = line.json("GET", "/v1/audit?limit=1000")
            more = line.json("GET", f"/v1/audit?limit=1000&before={page['next']}") if page["next"] else {"acts": []}
            return [each["target"] for each in (*page["acts"], *more["acts"])]

    whole = [f"thing {n}" for n in range(1_200)]
    until(lambda: held(standby) == whole, "the trail is there")
    standby.kill()
    with HomeOf(tmp_path / "standby") as store:
        store.add([done(-1, SYSTEM.now_ms())])
    first.stop()
    with HomeOf(tmp_path / "first") as store:
        store.add([done(-2, SYSTEM.now_ms())])
    first.start()
    standby.start()
    until(lambda: "thing -2" in held(standby), "what came since is there, too")
    assert sorted(held(standby)) == sorted(["thing -1", "thing -2", *whole]), "and nothing twice"


class HomeOf:
    """The trail in the directory of a hub that is stopped."""

    def __init__(self, path: Path) -> None:
        from holdfast.hub.tokens import SqliteTokens

        path.mkdir(exist_ok=True)
        self.tokens = SqliteTokens(path)

    def __enter__(self) -> Any:
        return self.tokens.acts()

    def __exit__(self, *_: object) -> None:
        self.tokens.close()
