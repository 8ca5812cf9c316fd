"""Taken at the commit, acknowledged after the sync: the two never get confused."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.protocol.actions import SendAppend, SendHello, Wait
from tests.unit.protocol_room import Room


@pytest.fixture
def room() -> Room:
    made = Room()
    made.write("a")
    assert isinstance(made.step(), SendHello)
    return made


def send(room: Room, *, safe: int = 0) -> SendAppend:
    """The next request, taken by the hub and not yet on its disk."""
    action = room.outbox.next()
    assert isinstance(action, SendAppend)
    (answer,) = room.hub.append([action.message])
    assert room.outbox.on_append(msgspec.structs.replace(answer, safe=safe))
    return action


def depth(room: Room) -> int:
    return sum(room.outbox.status().depth.values())


def test_what_is_taken_is_not_acknowledged(room: Room) -> None:
    send(room)
    assert depth(room) == 1
    assert room.outbox.status().state == "catching_up"


def test_the_next_request_goes_on_behind_what_was_taken(room: Room) -> None:
    first = send(room)
    room.write("b")
    second = send(room)
    assert (first.message.segments[0].first, second.message.segments[0].first) == (1, 2)
    assert first.message.line == second.message.line
    assert second.message.req == first.message.req + 1
    assert depth(room) == 2


def test_a_later_answer_acknowledges_what_the_disk_has_by_then(room: Room) -> None:
    first = send(room)
    room.write("b")
    send(room, safe=first.message.req)
    assert depth(room) == 1


def test_with_nothing_left_to_send_it_asks_once_whether_the_disk_has_it(room: Room) -> None:
    send(room)
    question = room.outbox.next()
    assert isinstance(question, SendAppend)
    assert question.message.segments == []
    assert isinstance(room.outbox.next(), Wait)
    (answer,) = room.hub.append([question.message])
    assert room.outbox.on_append(msgspec.structs.replace(answer, safe=answer.req))
    assert depth(room) == 0
    assert isinstance(room.outbox.next(), Wait)


def test_an_unanswered_question_is_asked_again_and_nothing_is_sent_twice(room: Room) -> None:
    send(room)
    assert isinstance(room.outbox.next(), SendAppend)
    room.outbox.failed("timeout")
    room.time += 60
    assert depth(room) == 1
    room.settle()
    assert depth(room) == 0
    assert len(room.values_on_hub()) == 1


def test_a_refused_question_does_not_make_requests_smaller(room: Room) -> None:
    send(room)
    assert isinstance(room.outbox.next(), SendAppend)
    room.outbox.failed("status", 400, None, True)
    room.time += 60
    room.settle()
    assert depth(room) == 0


def test_what_was_only_taken_is_sent_again_when_the_hub_lost_power(room: Room) -> None:
    send(room)
    room.hub.cut()
    room.hub.restart()
    assert room.values_on_hub() == []
    room.settle()
    assert room.values_on_hub() == [(1, "a")]
    assert depth(room) == 0


def test_a_number_of_a_hub_that_is_no_more_acknowledges_nothing(room: Room) -> None:
    first = send(room)
    room.hub.cut()
    room.hub.restart()
    question = room.outbox.next()
    assert isinstance(question, SendAppend)
    (answer,) = room.hub.append([question.message])
    assert answer.regen
    assert room.outbox.on_append(msgspec.structs.replace(answer, safe=first.message.req))
    assert depth(room) == 1
