"""The feed: every record once, in order, from exactly where the reader stood; live, long-polled and in pages."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from holdfast import wire
from holdfast.corpus import Stored
from holdfast.corpus.pages import Wanted
from holdfast.hub import feed as feed_room
from holdfast.hub import routes_feed
from holdfast.hub.core import Core
from holdfast.hub.directory import HubDirectory
from holdfast.records import MORE, VALUE
from holdfast.wire import Cursor
from tests.flow.hubs import HubProcess, until
from tests.hub.conftest import Room
from tests.hub.lines import Events, Line
from tests.hub.pens import Pen


@pytest.fixture
def listen(hub: HubProcess) -> Iterator[object]:
    """Opens live feeds; all are closed at the end."""
    opened: list[Events] = []

    def make(query: str = "", last: str = "") -> Events:
        opened.append(Events(hub.url, query, last=last))
        return opened[-1]

    yield make
    for events in opened:
        events.close()


def test_a_live_reader_gets_what_was_and_what_comes(hub, line: Line, listen, pen: Pen) -> None:
    pen.put("k", 1)
    line.append(pen.segment())
    events = listen()
    began = events.until("caught_up")
    assert [event for event, _, _ in began] == ["record", "caught_up"]
    assert began[0][1] == began[1][1] == began[1][2]["cursor"]
    pen.put("k", 2)
    line.append(pen.segment(2))
    event, cursor, data = next(iter(events))
    assert (event, data["value"], Cursor.parse(cursor).pos) == ("record", 2, 2)
    assert events.response.headers["x-accel-buffering"] == "no"
    assert events.response.headers["content-type"].startswith("text/event-stream")


def test_a_reader_resumes_behind_its_last_event_and_that_wins_over_after(line: Line, listen, pen: Pen) -> None:
    for number in range(5):
        pen.put("k", number)
    line.append(pen.segment())
    events = listen()
    cursors = [cursor for event, cursor, _ in events.until("caught_up") if event == "record"]
    again = listen("after=0", last=cursors[2])
    assert [data["seq"] for event, _, data in again.until("caught_up") if event == "record"] == [4, 5]
    page = line.json("GET", f"/v1/feed?after={cursors[1]}")
    assert [each["seq"] for each in page["records"]] == [3, 4, 5]
    assert page["cursor"] == cursors[4]
    assert page["caught_up"] is True
    assert set(page) == {"records", "cursor", "caught_up"}


def test_readers_who_come_in_the_middle_of_writing_miss_nothing_and_see_nothing_twice(hub, listen) -> None:
    pens = [Pen(f"agent-{n}") for n in range(4)]
    rounds, lines = 60, [Line(hub.url) for _ in pens]
    gen = lines[0].gen()

    def ship(pen: Pen, line: Line) -> None:
        for number in range(1, rounds + 1):
            pen.put("k", number)
            assert line.append(pen.segment(number), gen=gen).verdicts[0].state == "ack"

    found: list[list[int]] = []

    def follow(query: str, wanted: int) -> None:
        found.append([each["pos"] for each in listen(query).records(wanted)])

    writers = [threading.Thread(target=ship, args=pair) for pair in zip(pens, lines, strict=True)]
    readers = [threading.Thread(target=follow, args=("", rounds * 4)) for _ in range(6)]
    readers += [threading.Thread(target=follow, args=(f"agent=agent-{n}", rounds)) for n in range(4)]
    for one, other in zip(writers, readers[::2], strict=False):
        one.start()
        other.start()
    for reader in readers[1::2] + readers[8:]:
        if reader.ident is None:
            reader.start()
    for thread in writers + readers:
        thread.join(60)
    for line in lines:
        line.close()
    whole = [each for each in found if len(each) == rounds * 4]
    assert [each == list(range(1, rounds * 4 + 1)) for each in whole] == [True] * 6
    parts = sorted(pos for each in found if len(each) == rounds for pos in each)
    assert parts == list(range(1, rounds * 4 + 1))


def test_a_slow_reader_is_given_everything_from_the_corpus(room: Room, pen: Pen, monkeypatch) -> None:
    monkeypatch.setattr(feed_room, "QUEUE_BYTES_MAX", 2_000)
    wanted = Wanted()
    subscription = feed_room.Subscription(wanted)
    for number in range(5):
        pen.put(f"k{number}", "y" * 500)
    room.append(pen.segment())
    encoded: list[int] = []

    def encode(stored: Stored) -> bytes:
        encoded.append(stored.pos)
        return b"x" * 900

    commits = [feed_room.Commit([stored], encode) for stored in room.core.corpus.feed(0)]
    chunks = [feed_room.Chunk(n, n + 1, commit, [0]) for n, commit in enumerate(commits)]
    for chunk in chunks:
        subscription.offer(chunk)
    assert subscription.behind
    assert encoded == [], "nobody was near enough to take them"
    reader = routes_feed._Reader(wanted, 0, False)
    fits = routes_feed.FeedRoute._fitting
    assert fits(reader, chunks[:1]) == (b"x" * 900, True)
    assert fits(reader, chunks[3:]) == (b"", False), "a gap sends the reader to the corpus"
    assert fits(reader, chunks[:2])[0] == b"x" * 900, "what it has already is passed over"
    assert reader.pos == 2
    assert encoded == [1, 2], "each once, however many take it"
    assert fits(reader, [feed_room.Chunk(1, 4, commits[2], [0])]) == (b"", False), "half of it is known: read exactly"


def test_a_stopped_reader_catches_up_after_an_overflow(hub, line: Line, listen) -> None:
    pen = Pen()
    events = listen()
    events.until("caught_up")
    body = "y" * 50_000
    for number in range(1, 401):  # 20 MB: more than the sockets and the queue hold
        pen.put("k", {"number": number, "body": body + str(number)})
        line.append(pen.segment(number))
    assert [each["value"]["number"] for each in events.records(400)] == list(range(1, 401))
    assert line.json("GET", "/health")["overflows"] >= 1


def test_filters_narrow_and_the_cursor_of_a_filtered_reader_moves_on(line: Line, listen) -> None:
    ada, bob = Pen("ada"), Pen("bob")
    ada.put("plan/a", 1)
    ada.put("note", 2)
    bob.message("m1", "hi", to="ada")
    bob.put("plan/b", 3)
    line.append(ada.segment(), bob.segment())

    def seen(query: str) -> list[str]:
        return [each["key"] for each in line.json("GET", f"/v1/feed?{query}")["records"]]

    assert seen("agent=ada") == ["plan/a", "note"]
    assert seen("agent=ada&agent=bob&prefix=plan/") == ["plan/a", "plan/b"]
    assert seen("collection=messages") == ["m1"]
    assert seen("kind=message&agent=ada") == []
    page = line.json("GET", "/v1/feed?kind=message&agent=ada")
    assert Cursor.parse(page["cursor"]).pos == 4
    events = listen("agent=ada&prefix=plan/")
    began = events.until("caught_up")
    assert [event for event, _, _ in began] == ["record", "progress", "caught_up"]
    assert Cursor.parse(began[-1][1]).pos == 4


def test_an_idle_reader_is_told_where_it_stands_and_that_the_line_lives(home: HubDirectory) -> None:
    async def run() -> list[bytes]:
        core = Core(home)
        await core.start()
        sent: list[bytes] = []
        caught_up, enough = asyncio.Event(), asyncio.Event()

        async def send(message) -> None:
            sent.append(message.get("body", b""))
            if b"caught_up" in sent[-1]:
                caught_up.set()
            if any(b": alive" in each for each in sent) and any(b"event: progress" in each for each in sent):
                enough.set()

        async def receive() -> dict[str, str]:
            await enough.wait()
            return {"type": "http.disconnect"}

        headers = [(b"accept", b"text/event-stream")]
        scope = {"type": "http", "method": "GET", "query_string": b"agent=nobody", "headers": headers, "path": "/"}
        route = routes_feed.FeedRoute(core, keep_alive=0.02)
        listening = asyncio.ensure_future(route(scope, receive, send))
        async with asyncio.timeout(20):
            await caught_up.wait()
        pen = Pen()
        pen.put("k", 1)
        await core.writer.append(wire.Append(home.gen, 1, [pen.segment()]))
        async with asyncio.timeout(20):
            await listening
        await core.stop()
        return sent

    sent = b"".join(asyncio.run(run()))
    assert b"event: record" not in sent
    assert b"event: progress\nid: 1." in sent


def test_a_long_poll_returns_with_the_first_record(line: Line, hub: HubProcess, pen: Pen) -> None:
    other = Line(hub.url)
    after = line.json("GET", "/v1/feed?after=now")["cursor"]
    found: list[object] = []
    waiting = threading.Thread(
        target=lambda: found.append(other.json("GET", f"/v1/feed?after={after}&wait=15&agent=ada"))
    )
    waiting.start()
    until(lambda: line.json("GET", "/health")["listeners"] == 1, "the long poll listens")
    bystander = Pen("bob")
    bystander.put("k", 0)
    line.append(bystander.segment())
    pen.put("k", 1)
    line.append(pen.segment())
    waiting.join(20)
    (page,) = found
    assert [each["key"] for each in page["records"]] == ["k"]  # type: ignore[index]
    empty = line.json("GET", f"/v1/feed?after={page['cursor']}&wait=0.05")  # type: ignore[index]
    assert (empty["records"], empty["caught_up"]) == ([], True)
    other.close()


def test_a_reader_of_an_earlier_life_is_taken_back_to_where_histories_part(hub: HubProcess, pen: Pen) -> None:
    line = Line(hub.url)
    for number in range(4):
        pen.put("k", number)
    line.append(pen.segment(1, 2))
    at_two = line.json("GET", "/v1/feed")["cursor"]
    line.append(pen.segment(3))
    at_four = line.json("GET", "/v1/feed")["cursor"]
    line.close()
    hub.kill()
    hub.start()
    line = Line(hub.url)
    kept = line.json("GET", f"/v1/feed?after={at_four}")
    assert (kept["records"], "reset" in kept) == ([], False), "nothing was lost, so nobody goes back"
    strange = str(Cursor(9, (("elsewhere", 0),)))
    taken_back = line.json("GET", f"/v1/feed?after={strange}")
    assert taken_back["reset"] is True
    assert len(taken_back["records"]) == 4
    assert [each["seq"] for each in line.json("GET", f"/v1/feed?after={at_two}")["records"]] == [3, 4]
    ahead = str(Cursor(9, Cursor.parse(at_four).lineage))
    events = Events(hub.url, last=ahead)
    first = next(iter(events))
    assert first[0] == "reset"
    assert Cursor.parse(first[2]["cursor"]).pos == 4
    events.close()
    line.close()


def test_pages_are_bounded_and_never_cut_inside_a_batch(room: Room, pen: Pen) -> None:
    for number in range(6):
        pen.put("k", number, flags=VALUE | (MORE if number in (1, 2) else 0))
    room.append(pen.segment())
    page = room.get("/v1/feed", limit=2)
    assert [each["seq"] for each in page["records"]] == [1, 2, 3, 4]
    assert page["caught_up"] is False
    assert [each["seq"] for each in room.get("/v1/feed", after=page["cursor"])["records"]] == [5, 6]


@pytest.mark.parametrize("query", ["after=x", "after=-1", "limit=0", "limit=501", "wait=soon", "after=1.!!@2"])
def test_what_is_no_cursor_or_number_is_refused(room: Room, query: str) -> None:
    answer = room.client.get(f"/v1/feed?{query}")
    assert answer.status_code == 400
    assert json.loads(answer.content)["error"]["code"] == "usage"


def test_who_waits_for_any_commit_hears_of_those_that_nobody_listened_for() -> None:
    async def main() -> None:
        feed, bell = feed_room.Feed([("0" * 12, 0)], 0), asyncio.Event()
        feed.start(asyncio.get_running_loop())
        feed.bells.add(bell)
        feed.pass_over(5)
        await asyncio.wait_for(bell.wait(), 30)
        assert feed.head == 5

    asyncio.run(main())
