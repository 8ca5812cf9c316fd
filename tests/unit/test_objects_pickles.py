"""Old pickles give up their plain values, and nothing that they ask for is run, looked up or waited for."""

from __future__ import annotations

import array
import base64
import collections
import copyreg
import os
import pickle
import random
import uuid
import zoneinfo
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import HoldfastError, ObjectCorrupt, StorageRefused
from holdfast.objects import read_pickle
from holdfast.objects.values.forms import Unsayable
from holdfast.objects.values.pickle_reading import said_of
from holdfast.objects.values.serial import JSON, deserialise

EVERYTHING: dict[str, Any] = {
    "numbers": [0, 255, 256, -1, 2**70, 1.5, float("inf"), True, False, None, 1 + 2j, Decimal("1.10")],
    "text": ["", "grüße", "x" * 300, "\x00"],
    "bytes": [b"", b"\x00\xff" * 200, bytearray(b"ab"), bytearray()],
    "holders": [
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        [],
        [[1], 2],
        set(),
        {1, 2},
        frozenset({3}),
        {},
        {1: {(2,): 3}},
    ],
    "times": [
        datetime(2025, 12, 25, 1, 2, 3, 4),
        datetime(2025, 10, 26, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        datetime(2025, 12, 25, tzinfo=UTC),
        date(2025, 12, 25),
        time(1, 2, 3),
        timedelta(1, 2, 3),
    ],
    "ids": {uuid.UUID(int=7): uuid.UUID(int=8)},
    "arrays": [array.array("d", [1.5]), array.array("q", [-1]), array.array("B")],
}
SHARED = ["shared"]


class Agent:
    def __init__(self) -> None:
        self.name = "ceo"
        self.weights = [b"\x01", SHARED, SHARED]


class Slotted:
    __slots__ = ("rank",)

    def __init__(self) -> None:
        self.rank = 3


class Evil:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def read_here(data: bytes, allow: Any = ()) -> Any:
    """Without the process, for the many."""
    return deserialise(msgspec.json.encode(said_of(data, allow)), JSON)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_out_of_every_protocol(protocol: int) -> None:
    back = read_here(pickle.dumps(EVERYTHING, protocol=protocol))
    assert back == EVERYTHING
    assert [type(each) for each in back["bytes"]] == [bytes, bytes, bytearray, bytearray]
    assert [type(each) for each in back["holders"]] == [type(each) for each in EVERYTHING["holders"]]
    fold = int(protocol > 3)  # which older ones leave out
    assert (back["times"][1].fold, back["times"][1].tzinfo) == (fold, zoneinfo.ZoneInfo("Europe/Berlin"))
    kinds = [collections.OrderedDict(a=1), collections.defaultdict(list, a=1), collections.Counter("a")]
    assert read_here(pickle.dumps([*kinds, collections.deque([1, 2], 3)], protocol=protocol)) == [{"a": 1}] * 3 + [
        [1, 2]
    ]


@pytest.mark.parametrize("protocol", range(6))
def test_objects_of_allowed_classes_come_out_as_their_attributes(protocol: int) -> None:
    data = pickle.dumps([Agent()], protocol=protocol)
    expected = [{"name": "ceo", "weights": [b"\x01", ["shared"], ["shared"]]}]
    assert read_here(data, {f"{__name__}.Agent"}) == expected
    if protocol >= 2:
        assert read_here(pickle.dumps(Slotted(), protocol=protocol), {f"{__name__}.Slotted"}) == {"rank": 3}
    with pytest.raises(StorageRefused, match=r"Agent, which is no plain value") as caught:
        read_here(data)
    assert "allow=" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "dtype", "shape", "order", "raw"),
    [
        # What numpy wrote: columns first in protocol 5, other byte order in protocol 2, dates and a number in 4.
        ("gAWVfgAAAAAAAACME251bXB5Ll9jb3JlLm51bWVyaWOUjAtfZnJvbWJ1ZmZlcpSTlCiWCAAAAAAAAAAAAAIAAQADAJSMBW51bXB5lIwFZHR5"
         "cGWUk5SMAmkylImIh5RSlChLA4wBPJROTk5K/////0r/////SwB0lGJLAksChpSMAUaUdJRSlC4=",
         "<i2", [2, 2], "F", b"\0\0\2\0\1\0\3\0"),
        ("gAJjbnVtcHkuX2NvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQBjbnVtcHkKbmRhcnJheQpxAUsAhXECY19jb2RlY3MKZW5jb2RlCnED"
         "WAEAAABicQRYBgAAAGxhdGluMXEFhnEGUnEHh3EIUnEJKEsBSwGFcQpjbnVtcHkKZHR5cGUKcQtYAgAAAGY4cQyJiIdxDVJxDihLA1gBAAAA"
         "PnEPTk5OSv////9K/////0sAdHEQYoloA1gJAAAAP8O4AAAAAAAAcRFoBYZxElJxE3RxFGIu",
         ">f8", [1], None, b"?\xf8\0\0\0\0\0\0"),
        ("gASVogAAAAAAAACMFm51bXB5Ll9jb3JlLm11bHRpYXJyYXmUjAxfcmVjb25zdHJ1Y3SUk5SMBW51bXB5lIwHbmRhcnJheZSTlEsAhZRDAWKU"
         "h5RSlChLAUsBhZRoA4wFZHR5cGWUk5SMAk04lImIh5RSlChLBIwBPJROTk5K/////0r/////SwBOKEMCbnOUSwFLAUsBdJSGlHSUYolDCAAA"
         "0fRBTIQYlHSUYi4=",
         "<M8[ns]", [1], None, b"\0\0\xd1\xf4AL\x84\x18"),
        ("gASVZgAAAAAAAACMFm51bXB5Ll9jb3JlLm11bHRpYXJyYXmUjAZzY2FsYXKUk5SMBW51bXB5lIwFZHR5cGWUk5SMAmY0lImIh5RSlChLA4wB"
         "PJROTk5K/////0r/////SwB0lGJDBAAAIECUhpRSlC4=",
         "<f4", [], None, b"\0\0 @"),
    ],
)  # fmt: skip
def test_numpy_arrays_come_out_without_numpy(data: str, dtype: str, shape: Any, order: Any, raw: bytes) -> None:
    ((name, form),) = said_of(base64.b64decode(data)).items()
    assert name == ("$hf:ndarray" if shape else "$hf:numpy")
    assert (form["dtype"], form["shape"], form.get("order")) == (dtype, shape, order)
    assert base64.b64decode(form["data"]) == raw


@pytest.mark.parametrize(
    "parts",
    [
        (os.system, ("touch owned",)),
        (eval, ("open('owned', 'w')",)),
        (getattr, ("", "__class__")),
        (copyreg._reconstructor, (Agent, object, None)),  # type: ignore[attr-defined]
        (zoneinfo.ZoneInfo, ("../../etc/passwd",)),
        (array.array, ("u", "text")),
    ],
)
def test_what_a_pickle_asks_for_is_not_run(parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 5):
        with pytest.raises((StorageRefused, ObjectCorrupt, Unsayable)):
            read_here(pickle.dumps([Evil(*parts)], protocol=protocol))
    assert not list(tmp_path.iterdir())


def test_an_allowed_class_is_a_name_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageRefused, match="built from arguments"):
        read_here(pickle.dumps(Evil(os.system, ("touch owned",))), {"posix.system", "os.system", "nt.system"})
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_bytes_crash_the_reader() -> None:
    chance = random.Random(26)
    whole = [pickle.dumps(EVERYTHING, protocol=protocol) for protocol in range(6)]
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(1500):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            read_here(bytes(data[: chance.choice([None, chance.randrange(len(data))])]))
            outcomes["read"] += 1
        except (HoldfastError, Unsayable, MemoryError, UnicodeEncodeError) as error:
            outcomes[type(error).__name__] += 1
    assert outcomes["ObjectCorrupt"] > 100
    assert outcomes["read"] > 100


def test_it_is_read_in_a_process_with_limits() -> None:
    assert read_pickle(pickle.dumps(EVERYTHING)) == EVERYTHING
    assert read_pickle(pickle.dumps(Agent()), allow={f"{__name__}.Agent"})["name"] == "ceo"
    with pytest.raises(StorageRefused, match=r"system, which is no plain value"):
        read_pickle(pickle.dumps(Evil(os.system, ("true",))))
    with pytest.raises(ObjectCorrupt, match="not a whole pickle"):
        read_pickle(pickle.dumps(EVERYTHING)[:-20])
    large: list[Any] = ["x" * 1000]
    for _ in range(18):
        large = [large, large]  # 256 MB of text in 1.2 KB
    with pytest.raises(StorageRefused, match=r"memory|needs more"):
        read_pickle(pickle.dumps(large), memory=150 << 20)
    with pytest.raises(StorageRefused, match=r"0\.01 s"):
        read_pickle(b"N.", seconds=0.01)
    with pytest.raises(StorageRefused, match="allow"):
        read_pickle(b"N.", allow="app.Agent")
