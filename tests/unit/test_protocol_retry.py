"""How long to wait after which failure."""

from __future__ import annotations

from random import Random

import pytest

from holdfast.protocol.retry import Backoff, Reaction, reaction, retry_after

NOW = 1_767_225_600_000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("99999", 300.0),
        ("-5", None),
        ("0", None),
        ("nan", None),
        ("soon", None),
        ("Mon, 01 Jan 2001 00:00:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_and_nonsense_is_passed_over(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_waits_grow_to_a_cap_and_never_in_step() -> None:
    backoff = Backoff(Random(3))
    waits = [backoff.delay() for _ in range(200)]
    assert max(waits[:3]) <= 0.8
    assert 20 < max(waits) <= 30
    assert min(waits[20:]) < 5
    assert len(set(waits)) == 200


def test_retry_after_is_a_lower_bound() -> None:
    backoff = Backoff(Random(3))
    assert all(10 <= backoff.delay(10.0) <= 30 for _ in range(100))


@pytest.mark.parametrize(
    ("status", "hub", "expected"),
    [
        (None, False, Reaction.RETRY),
        (503, True, Reaction.RETRY),
        (408, False, Reaction.RETRY),
        (507, True, Reaction.FULL),
        (401, True, Reaction.DENIED),
        (403, False, Reaction.RETRY),
        (413, True, Reaction.SMALLER),
        (422, False, Reaction.RETRY),
        (404, True, Reaction.MISMATCH),
        (404, False, Reaction.RETRY),
        (501, False, Reaction.MISMATCH),
        (302, False, Reaction.RETRY),
    ],
)
def test_an_answer_counts_only_if_a_hub_gave_it(status: int | None, hub: bool, expected: Reaction) -> None:
    assert reaction(status, hub) is expected
