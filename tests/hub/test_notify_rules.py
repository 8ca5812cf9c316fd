"""Rules of notifications by themselves: whom they tell of what, when they may speak, where they may reach."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from holdfast import seal
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.notify.letter import Sheet, Told, written
from holdfast.hub.notify.outbox import PAUSE_MAX_MS, pause_ms
from holdfast.hub.notify.post import check_allowed, may, outcome_of
from holdfast.hub.notify.rules import HOUR_MS, Rule, address_of, check_name, checked, rule_of
from holdfast.hub.notify.vault import Target, Vault

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> int:
    """A moment by the clock on somebody's wall; ms since 1970."""
    return round(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Rule(), {"question", "alert", "high"}),
        (Rule(kinds=("*",)), {"question", "alert", "high", "note", "low"}),
        (Rule(kinds=("no?e",)), {"note", "low", "high"}),
        (Rule(priority="normal"), {"question", "alert", "high", "note"}),
        (Rule(kinds=("note",), priority="high"), {"high"}),
        (Rule(kinds=("*",), senders=("ops-*",)), {"alert"}),
        (Rule(kinds=("*",), to=("boss", "")), {"low", "note"}),
    ],
)
def test_a_rule_tells_of_what_it_says(rule: Rule, told: set[str]) -> None:
    messages = {
        "question": ("question", None, "ada", "people"),
        "alert": ("alert", "normal", "ops-1", "people"),
        "high": ("note", "high", "ada", "people"),
        "note": ("note", "an odd one", "ada", "people"),
        "low": ("note", "low", "ada", "people"),
    }
    if "boss" in rule.to:
        messages |= {"low": ("note", "low", "ada", "boss"), "note": ("note", None, "ada", "")}
    assert {name for name, message in messages.items() if rule.tells_of(*message)} == told


@pytest.mark.parametrize(
    ("quiet", "now", "speaks"),
    [
        ("22:00-07:00", "2026-11-22 21:59", "2026-11-22 21:59"),
        ("22:00-07:00", "2026-11-22 22:00", "2026-11-23 07:00"),
        ("22:00-07:00", "2026-11-23 03:00", "2026-11-23 07:00"),
        ("22:00-07:00", "2026-11-23 07:00", "2026-11-23 07:00"),
        ("12:00-13:30", "2026-11-22 13:29", "2026-11-22 13:30"),
        ("12:00-13:30", "2026-11-22 02:00", "2026-11-22 02:00"),
        ("22:00-07:00", "2026-10-24 23:00", "2026-10-25 07:00"),  # this night is ten hours long
        ("22:00-07:00", "2026-03-28 23:00", "2026-03-29 07:00"),  # and this eight
        ("", "2026-11-23 03:00", "2026-11-23 03:00"),
    ],
)
def test_quiet_hours_are_those_of_the_wall(quiet: str, now: str, speaks: str) -> None:
    assert Rule(quiet=quiet, zone="Europe/Berlin").speaks_from(at(now)) == at(speaks)
    assert Rule(quiet=quiet).speaks_from(at(now, ZoneInfo("UTC"))) == at(speaks, ZoneInfo("UTC"))


def test_a_rate_is_kept_in_any_hour_and_ends_in_no_quiet_one() -> None:
    rule, now = Rule(rate=2), at("2026-11-22 12:00")
    assert rule.due(now, []) == now
    assert rule.due(now, [now - 1]) == now
    assert rule.due(now, [now - 1, now - 60_000]) == now - 60_000 + HOUR_MS
    assert rule.due(now, [now + 5_000, now - 60_000]) == now - 60_000 + HOUR_MS, "one is still to be sent"
    quiet = Rule(rate=1, quiet="12:30-14:00", zone="Europe/Berlin")
    assert quiet.due(now, [now]) == at("2026-11-22 14:00")


def test_pauses_grow_to_an_hour_and_differ() -> None:
    assert [pause_ms(n, 1.0) for n in (1, 2, 3)] == [5_000, 10_000, 20_000]
    assert pause_ms(1, 0.0) == 2_500
    assert pause_ms(10_000, 1.0) == PAUSE_MAX_MS


@pytest.mark.parametrize(
    ("address", "allowed", "good"),
    [
        ("93.184.216.34", (), True),
        ("2606:2800:220:1::1", (), True),
        *((each, (), False) for each in ("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0")),
        *((each, (), False) for each in ("::1", "fe80::1", "fd00::1", "224.0.0.1", "ff02::1", "100.64.0.1")),
        *((each, (), False) for each in ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.1.2.3")),
        ("10.0.0.1", ("10.0.0.0/8",), True),
        ("::ffff:10.0.0.1", ("10.0.0.0/8",), True),
        ("10.0.0.1", ("ntfy.lan",), True),
        ("10.0.0.1", ("*.lan",), True),
        ("10.0.0.1", ("*",), True),
        ("93.184.216.34", ("10.0.0.0/8",), False),
        ("127.0.0.1", ("10.0.0.0/8", "*.example"), False),
    ],
)
def test_only_allowed_addresses_are_reached(address: str, allowed: tuple[str, ...], good: bool) -> None:
    assert may("NTFY.lan", ipaddress.ip_address(address), check_allowed(allowed)) is good


@pytest.mark.parametrize("wrong", ["http://x", "a/b", "", "10.0.0.0/99", "a\nb"])
def test_a_list_of_hosts_is_one(wrong: str) -> None:
    with pytest.raises(UsageError):
        check_allowed((wrong,))


@pytest.mark.parametrize(
    "address",
    ["ftp://x/", "file:///etc/passwd", "gopher://x", "http://", "http://u:p@x/", "http://x:0/", "http://x:99999/",
     "//x", "http://x/a b", "http://x/\r\nA: b", "http://ü.example/", "https://" + "a" * 2000],
)  # fmt: skip
def test_an_address_is_one_of_http(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        address_of(address)
    if len(address) > 10:
        assert address not in str(caught.value), "it may hold a secret"


@pytest.mark.parametrize(
    "wrong",
    [
        *({"quiet": each} for each in ("22-07", "24:00-07:00", "07:00-07:00")),
        *({"quiet": "22:00-07:00", "zone": each} for each in ("Mars/Base", "../../etc/passwd", "", "/etc/localtime")),
        *({"rate": each} for each in (0, 3_601)),
        *({name: ("x" * 256,)} for name in ("kinds", "senders", "to")),
        *({"priority": "urgent"}, {"senders": ()}, {"link": "javascript:alert(1)"}),
    ],
)
def test_a_rule_that_cannot_be_kept_to_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        checked(Rule(**wrong))  # type: ignore[arg-type]
    assert rule_of({**wrong, "sealed": ""}) is None, "neither is one that somebody else wrote down"


def test_names_of_rules_can_stand_anywhere() -> None:
    assert check_name("ops-1.b_c") == "ops-1.b_c"
    for wrong in ("", "a/b", "a b", "-a", "a" * 65, "ä", "a\n"):
        with pytest.raises(UsageError):
            check_name(wrong)


def test_what_is_sealed_opens_with_the_rule_as_it_was_and_for_this_hub_alone() -> None:
    signer = seal.Signer(seal.generate())
    vault, target = Vault(signer), Target(address="https://hooks.example/T0P/SECRET", secret=b"k" * 32)
    rule = vault.seal("ops", Rule(where="https://hooks.example"), target)
    assert vault.open("ops", rule) == target
    assert b"T0P" not in msgspec.json.encode(rule)
    assert Vault(signer).open("ops", rule_of(msgspec.to_builtins(rule)) or Rule()) == target
    for name, changed in (
        ("phone", rule),
        ("ops", msgspec.structs.replace(rule, body=True)),
        ("ops", msgspec.structs.replace(rule, sealed="AAAA")),
        ("ops", msgspec.structs.replace(rule, sealed="")),
    ):
        with pytest.raises(HoldfastError):
            vault.open(name, changed)
    with pytest.raises(HoldfastError):
        Vault(seal.Signer(seal.generate())).open("ops", rule)


def test_a_line_for_a_telephone_holds_whatever_names_there_are() -> None:
    told = Told(id="m/1", sender="ädä\r\nX-Evil: 1", to="people", kind="question", priority="hot", time="")
    sheet = Sheet(
        id="ntf_1", name="phone", rule=Rule(form="ntfy", link="http://hub.lan/"), hub="h", many=1, told=[told]
    )
    letter = written(sheet, Target(address="", token="tk"), 0)
    assert all(value.isascii() and value.isprintable() for value in letter.headers.values())
    assert letter.headers["Priority"] == "5"
    assert letter.headers["Authorization"] == "Bearer tk"
    assert letter.headers["Title"].startswith("=?utf-8?")
    many = msgspec.structs.replace(sheet, many=70, told=[msgspec.structs.replace(told, body="x" * 9_000)] * 50)
    letter = written(many, Target(address=""), 0)
    assert letter.headers["Title"] == "70 messages"
    assert letter.headers["Click"] == "http://hub.lan/messages"
    assert len(letter.body) < 4_096 * 2


def test_an_answer_says_whether_to_come_again() -> None:
    assert outcome_of(204, "").ok
    assert outcome_of(302, "").for_good
    assert not outcome_of(410, "").for_good
    assert outcome_of(429, "120").wait_s == 120
    assert outcome_of(503, "Wed, 21 Oct 2026 07:28:00 GMT").wait_s == 0
