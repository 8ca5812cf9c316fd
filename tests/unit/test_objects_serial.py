"""What is stored comes back equal and of the same type, and is plain JSON where it can be; or it is refused."""

from __future__ import annotations

import array
import enum
import json
import math
import struct
import zoneinfo
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import ObjectCorrupt, StorageRefused
from holdfast.objects.values.serial import JSON, TEXT, deserialise, guess, serialise
from holdfast.objects.values.types import Types

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
zones = st.none() | st.sampled_from(
    [UTC, timezone(timedelta(hours=-3, seconds=5)), *map(zoneinfo.ZoneInfo, ("Europe/Berlin", "Asia/Kathmandu"))]
)
numbers = st.sampled_from(["b", "H", "i", "q", "d"]).flatmap(
    lambda code: st.lists(st.integers(0, 100), max_size=5).map(lambda items: array.array(code, items))
)
hashable = st.recursive(
    texts
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.booleans()
    | st.none()
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.dates()
    | st.times(timezones=st.none() | st.just(UTC))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
values = st.recursive(
    hashable | numbers | st.binary(max_size=8).map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts | st.sampled_from(["$hf:bytes", "$hf:dict", "$hf:new", "$date"]), inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=12,
)


def there_and_back(value: Any, types: Types | None = None) -> Any:
    types = types or Types()
    return deserialise(*serialise(value, types=types), types=types)


def same(one: Any, other: Any) -> bool:
    """Equal and of the same type all the way down; two NaN are the same, 0.0 and -0.0 are not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, datetime | time):
        zones_are = type(one.tzinfo) is type(other.tzinfo) and one.utcoffset() == other.utcoffset()
        return zones_are and one.fold == other.fold and one.replace(tzinfo=None) == other.replace(tzinfo=None)
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same(each, found) for found in other) for each in one)
    return bool(one == other)


@given(values)
@example({"$hf:bytes": "aGk="})
@example({"$hf:dict": {"$hf:dict": 1}})
@example({"a": [math.nan, -0.0, 2**64, -(2**63) - 1, 10**5000, Decimal("sNaN")]})
@example(datetime.max.replace(tzinfo=zoneinfo.ZoneInfo("America/New_York")))
@example(datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")))
@example({(1, frozenset({b"x"})): {None: 1}, 1.5: 2, UUID(int=7): {3, "3"}})
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    back, (inner,) = there_and_back(value), there_and_back([value])
    assert same(inner, value)
    assert same(bytearray(back) if isinstance(value, bytearray) else back, value)


def test_views_of_numbers_come_back_and_views_of_bytes_are_bytes() -> None:
    view = memoryview(array.array("d", [1.5, 2.5, 3.5, 4.5])).cast("B").cast("d", [2, 2])
    back = there_and_back({"grid": view, "bytes": memoryview(b"abc")})
    assert back["grid"] == view
    assert (back["grid"].format, back["grid"].shape, back["bytes"]) == ("d", (2, 2), b"abc")
    for body in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        assert serialise(body) == (b"abc", "application/octet-stream")


def test_plain_json_is_what_json_writes_and_foreign_json_is_left_alone() -> None:
    plain = {"name": "CEO", "rôles": ["executive", None, True, 1, 2.5], "$date": {"$oid": "x"}}
    data, kind = serialise(plain)
    assert (json.loads(data), kind) == (plain, "application/json")
    assert b"$hf:" not in data
    tagged = json.loads(serialise({"name": "CEO", "photo": b"\x00\xff"})[0])
    assert tagged == {"name": "CEO", "photo": {"$hf:bytes": "AP8="}}


def test_equal_sets_have_equal_bytes() -> None:
    assert serialise({"tags": {"b", "a", "c"}})[0] == b'{"tags":{"$hf:set":["a","b","c"]}}'


class Colour(enum.StrEnum):
    RED = "red"


class Zone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(0)


class Loose:
    pass


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        ({"a": [1, {"b": Loose()}]}, "['a'][1]['b']", "has no form"),
        ([OrderedDict(a=1)], "[0]", "OrderedDict"),
        ({"n": Counter("aab")}, "['n']", "Counter"),
        ([defaultdict(list)], "[0]", "defaultdict"),
        ((Colour.RED,), "[0]", "Colour"),
        ({"f": lambda: None}, "['f']", "function"),
        ({1: {2: Loose}}, "[1][2]", "builtins.type"),
        ({"t": datetime(2025, 1, 1, tzinfo=Zone())}, "['t']", "zone"),
        ({"u": array.array("u", "text")}, "['u']", "no numbers"),
        ({"deep": {"\ud800": 1}}, "['deep']", "surrogate"),
        ({"tags": {"\ud800"}}, "['tags']", "surrogate"),
        ([frozenset({("a", "\udfff")})], "[0]", "surrogate"),
    ],
)
def test_what_has_no_form_is_refused_with_the_way_to_it(value: Any, where: str, why: str) -> None:
    with pytest.raises(StorageRefused, match=why) as caught:
        serialise(value)
    assert caught.value.context["path"].startswith(where)
    assert caught.value.hint


def test_a_value_that_contains_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append({"ring": ring})
    with pytest.raises(StorageRefused, match="contains itself"):
        serialise(ring)


@pytest.mark.parametrize(
    ("value", "content_type", "loaded"),
    [
        ({"a": 1}, "application/json", {"a": 1}),
        ('{"a": 1}', "application/json", {"a": 1}),
        (b' [1, {"$hf:bytes": "aGk="}]', "application/vnd.acme+json", [1, b"hi"]),
        ("grüß", "text/markdown", "grüß"),
        ("grüß", "text/csv; charset=latin-1", "grüß"),
        (b"gr\xfc\xdf", 'text/csv; charset="ISO-8859-1"', "grüß"),
        ("<a/>", "application/xml; charset=utf-8", "<a/>"),
        (b"\x1f\x8b", "application/gzip", b"\x1f\x8b"),
        (b"\x00", "image/png", b"\x00"),
    ],
)
def test_a_content_type_is_kept_and_honoured_both_ways(value: Any, content_type: str, loaded: Any) -> None:
    data, kind = serialise(value, content_type)
    assert kind == content_type
    assert isinstance(value, dict) or data in (
        value,
        *(value.encode(c) for c in ("utf-8", "latin-1") if value is str(value)),
    )
    assert deserialise(data, kind) == loaded


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        ("hello", "application/json"),
        (b"\xff\xfe", "application/json"),
        ('{"$hf:bytes": "%"}', "application/json"),
        (b"\xff", "text/plain"),
        ("€", "text/plain; charset=latin-1"),
        ("x", "text/plain; charset=no-such"),
        ("x", "text/plain; charset=base64"),
        ("x", "application/octet-stream"),
        ({"a": 1}, "text/plain"),
        ({"a": 1}, "image/png"),
        ("x", 7),
        ("x", "text/plain\nx"),
        ("x", "text/plain; charset=utf-8; title=grün"),
        ("x", "text/" + "x" * 200),
    ],
)
def test_a_value_that_is_not_of_its_content_type_is_refused(value: Any, content_type: Any) -> None:
    with pytest.raises(StorageRefused):
        serialise(value, content_type)


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"{", JSON),
        (b"\xff", TEXT),
        (b"\xff", JSON),
        *(
            (json.dumps({"$hf:" + name: body}).encode(), JSON)
            for name, body in [
                ("bytes", "a"),
                ("bytes", 5),
                ("datetime", "yesterday"),
                ("decimal", "x"),
                ("int", []),
                ("float", "1.5"),
                ("set", [[]]),
                ("set", {}),
                ("map", [[1]]),
                ("tuple", "ab"),
                ("uuid", "-"),
                ("timedelta", [10**10, 0, 0]),
                ("complex", ["x", "y"]),
                ("array", {"type": "d", "size": 8, "data": "AAA="}),
                ("array", {"type": "O", "size": 8, "data": ""}),
                ("memoryview", {"type": "b", "size": 1, "data": "AAA=", "shape": [3]}),
                ("object", {"value": 1}),
            ]
        ),
    ],
)
def test_damage_is_told_with_the_key(data: bytes, content_type: str) -> None:
    with pytest.raises(ObjectCorrupt, match="agents/ceo"):
        deserialise(data, content_type, key="agents/ceo")


def test_a_form_of_a_newer_version_is_not_taken_for_damage() -> None:
    with pytest.raises(StorageRefused, match="unknown form"):
        deserialise(b'{"$hf:later": 1}', JSON)


def test_types_are_guessed_only_where_nobody_keeps_them() -> None:
    assert [guess(each) for each in (b'{"a":1}', b"[", b"[1]", b"text", b"")].count(JSON) == 2
    assert deserialise(b'{"a":1}', "") == {"a": 1}
    assert deserialise(b"{a", "") == b"{a"


@dataclass(frozen=True)
class Agent:
    name: str
    born: datetime
    weights: Any
    parts: tuple[Agent, ...] = ()
    rank: int = field(init=False, default=0)


class Plan(msgspec.Struct):
    goal: str
    owner: Agent | None = None


class Point(NamedTuple):
    x: int
    y: int


def of(*classes: Any) -> Types:
    types = Types()
    for each in classes:
        types.register(each)
    return types


def test_registered_classes_come_back_as_themselves_within_each_other() -> None:
    types = of(Agent, Plan, Point, Colour)
    now = datetime.now(UTC)
    agent = Agent("ceo", now, array.array("d", [0.5]), (Agent("cfo", now, b"\x00"),))
    object.__setattr__(agent, "rank", 3)
    value = {"plan": Plan("grow", agent), "points": {Point(1, 2): Colour.RED}}
    back = there_and_back(value, types)
    assert back == value
    assert (type(back["plan"]), back["plan"].owner.rank) == (Plan, 3)
    assert [(type(k), type(v)) for k, v in back["points"].items()] == [(Point, Colour)]
    stored = json.loads(serialise(Plan("grow"), types=types)[0])
    assert stored == {"$hf:object": {"type": "Plan", "value": {"goal": "grow", "owner": None}}}


def test_a_class_that_is_not_registered_is_neither_stored_nor_made() -> None:
    data, kind = serialise(Plan("grow"), types=of(Plan))
    with pytest.raises(StorageRefused, match="registered as 'Plan'"):
        deserialise(data, kind, types=Types())
    with pytest.raises(StorageRefused, match="register"):
        raise_hint(lambda: serialise(Plan("grow"), types=Types()))


def raise_hint(call: Any) -> None:
    """The same error, saying what it hints at."""
    try:
        call()
    except StorageRefused as error:
        raise StorageRefused(error.hint) from error


def test_a_class_whose_decode_loses_something_is_refused_before_it_is_stored() -> None:
    types = Types()
    types.register(Loose, encode=lambda value: {"kept": 1, "now": id(value)}, decode=lambda said: Loose())
    with pytest.raises(StorageRefused, match="otherwise") as caught:
        serialise({"a": [Loose()]}, types=types)
    assert caught.value.context["path"] == "['a'][0]['$hf:object']['value']['now']"
    types = Types()
    types.register(Loose, encode=lambda value: 1, decode=lambda said: said["x"])
    with pytest.raises(StorageRefused, match="does not read back"):
        serialise(Loose(), types=types)


def test_a_check_stands_at_both_doors() -> None:
    def positive(plan: Plan) -> None:
        if not plan.goal:
            raise ValueError("a plan needs a goal")

    types, lax = Types(), Types()
    types.register(Plan, check=positive)
    lax.register(Plan)
    with pytest.raises(StorageRefused, match=r"at value\['p'\].*needs a goal"):
        serialise({"p": Plan("")}, types=types)
    with pytest.raises(ObjectCorrupt, match="needs a goal"):
        deserialise(*serialise(Plan(""), types=lax), types=types)
    assert there_and_back(Plan("grow"), types) == Plan("grow")


def test_one_name_stands_for_one_class() -> None:
    types = of(Plan)
    with pytest.raises(StorageRefused, match="stands for"):
        types.register(Agent, "Plan")
    with pytest.raises(StorageRefused, match="apart"):
        types.register(Loose)
    with pytest.raises(StorageRefused, match="both"):
        types.register(Loose, encode=str)
    assert types.register(Plan) is Plan


def test_numpy_arrays_come_back_exactly() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(6.0).reshape(2, 3),
        numpy.asfortranarray(numpy.arange(6, dtype=">i2").reshape(2, 3)),
        numpy.arange(10)[::3],
        numpy.array([math.nan, math.inf]),
        numpy.array(["2025-12-25"], dtype="M8[ns]"),
        numpy.array(["a", "bcd"]),
        numpy.array(5, dtype="f2"),
        numpy.zeros((0, 3)),
    ]
    for one in arrays:
        other = there_and_back({"embedding": one})["embedding"]
        assert (other.dtype, other.shape, other.tobytes()) == (one.dtype, one.shape, one.tobytes())
        assert other.flags.writeable
    assert type(there_and_back(numpy.float64(0.1))) is numpy.float64
    with pytest.raises(StorageRefused, match="object"):
        serialise(numpy.array([Loose()], dtype=object))
    with pytest.raises(ObjectCorrupt):
        deserialise(b'{"$hf:ndarray": {"dtype": "|O8", "shape": [1], "data": "AAAAAAAAAAA="}}', JSON)


def test_pydantic_models_come_back() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Config", name=(str, ...), since=(datetime, ...), tags=(set[str], ...))
    value = model(name="ceo", since=datetime.now(UTC), tags={"a"})
    back = there_and_back([value], of(model))
    assert back == [value]
    assert type(back[0]) is model


def test_dates_beside_datetimes_keep_their_type() -> None:
    assert same(there_and_back([date(2025, 1, 1), datetime(2025, 1, 1)]), [date(2025, 1, 1), datetime(2025, 1, 1)])
