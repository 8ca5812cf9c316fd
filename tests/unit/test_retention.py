"""Budgets are the earlier system's, to the megabyte; what cannot be meant is refused."""

from __future__ import annotations

import pytest

from holdfast.errors import UsageError
from holdfast.retention import GB, MB, ROLES, Retention

TABLE = [
    # role, base, window, scale, and the total as the table of the earlier system shows it
    ("commander", 100 * MB, 32_000, 0.5 * MB, "116 MB"),
    ("recruiter", 2 * GB, 32_000, 2 * MB, "2.06 GB"),
    ("reasoner", 500 * MB, 128_000, 1 * MB, "628 MB"),
    ("coder", 1 * GB, 64_000, 1.5 * MB, "1.09 GB"),
    ("synthesizer", 300 * MB, 32_000, 0.75 * MB, "324 MB"),
]


@pytest.mark.parametrize(("role", "base", "window", "scale", "total"), TABLE)
def test_the_five_rows_give_the_totals_of_the_table(
    role: str, base: int, window: int, scale: float, total: str
) -> None:
    found = ROLES[role]
    assert (found.base_bytes, found.context_tokens, found.scale_bytes) == (base, window, scale)
    size = Retention.of(role).max_bytes
    assert size == base + window / 1000 * scale
    shown = f"{size / GB:.2f} GB" if size >= GB else f"{size / MB:g} MB"
    assert shown == total
    assert set(ROLES) == {row[0] for row in TABLE}


def test_a_window_scales_the_budget_and_max_bytes_overrides_it() -> None:
    assert Retention.of("Commander", context_tokens=200_000).max_bytes == 200 * MB
    assert Retention.of("commander", context_tokens=0).max_bytes == 100 * MB
    assert Retention.of("recruiter", max_bytes=512 * MB, days=30).max_bytes == 512 * MB
    assert Retention.of("recruiter").keeps("candidates")
    assert not Retention.of("recruiter").keeps("notes")


def test_the_first_collection_that_fits_says_how_many_days() -> None:
    found = Retention(days=30, collection_days={"audit": 0, "log-*": 2, "*": 90})
    assert [found.days_of(name) for name in ("audit", "log-web", "notes")] == [0, 2, 90]
    assert Retention(days=30).days_of("notes") == 30
    assert not Retention().limits
    assert not Retention(collection_days={"audit": 0}).limits
    assert Retention(collection_days={"log-*": 1}).limits


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retention(max_bytes=1000),
        lambda: Retention(days=-1),
        lambda: Retention(collection_days={"a": float("nan")}),
        lambda: Retention(wait_s=-0.1),
        lambda: Retention.of("typist"),
        lambda: Retention.of("coder", context_tokens=-5),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_way_out(wrong: object) -> None:
    with pytest.raises(UsageError) as caught:
        wrong()  # type: ignore[operator]
    assert caught.value.hint
