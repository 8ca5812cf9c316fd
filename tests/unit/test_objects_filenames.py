"""Keys and file names, one to one."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from holdfast.errors import StorageRefused
from holdfast.objects.files.names import MORE, PlainNames, TypedNames
from holdfast.objects.keys import check_key
from holdfast.testing.objects import KEYS

WAYS = {"typed": TypedNames(), "plain": PlainNames(), "folded": TypedNames(folding=True), "both": PlainNames(True)}
TYPES = ("application/json", "application/ld+json", "text/plain; charset=utf-8", "image/png")
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I | re.S)


def _possible(key: str) -> bool:
    try:
        check_key(key)
    except StorageRefused:
        return False
    return True


hard = st.sampled_from(
    [*'aAéÉß\u017f.% :?*<>|"~+-_0', "e\u0301", "con", "aux", ".json", ".txt", ".bin", "%2E", "%+", "日"]
)
segments = st.lists(hard, min_size=1, max_size=70).map("".join)
keys = (st.lists(segments, min_size=1, max_size=4).map("/".join) | st.text(min_size=1, max_size=60)).filter(_possible)


def path_of(names: TypedNames, key: str, kind: str = "") -> str:
    """Where the file of a key lies."""
    way, stem = names.place(key)
    return "/".join([*way, names.name(stem, kind)])


def key_of(names: TypedNames, path: str) -> str | None:
    """The key of a file, as a listing finds it."""
    *directories, file = path.split("/")
    found: list[str] = []
    carried: tuple[str, ...] = ()
    for name in directories:
        if name.endswith(MORE):
            carried = (*carried, name)
            continue
        segment = names.directory_segment(name, carried)
        if segment is None:
            return None
        found, carried = [*found, segment], ()
    last = names.segment(file, carried)
    return None if last is None else "/".join([*found, last[0]])


@pytest.mark.parametrize("way", WAYS)
@given(key=keys, kind=st.sampled_from(TYPES))
@example(key="?" * 200, kind="text/plain")
@example(key="con/nul.txt/aux .x", kind="text/plain")
@example(key="a.json/b.json", kind="application/json")
@example(key="CON", kind="application/json")
@example(key="...", kind="application/json")
def test_a_file_has_the_key_that_it_was_made_for(way: str, key: str, kind: str) -> None:
    names = WAYS[way]
    path = path_of(names, key, kind)
    assert key_of(names, path) == key
    assert path.rpartition("/")[2] in names.candidates(names.place(key)[1])
    for name in path.split("/"):
        assert len(name.encode()) <= 255
        assert not name.startswith(".")
        assert name[-1] not in ". "
        assert not set(name) & set('<>:"|?*\\')
        assert not DEVICES.fullmatch(name), name


@pytest.mark.parametrize("way", WAYS)
@given(one=keys, other=keys)
@example(one="a", other="a.json")
@example(one="A", other="a")
@example(one="é", other="e\u0301")
@example(one="straße", other="strasse")
@example(one="a/b", other="a%2Fb")
def test_no_two_keys_have_a_file_in_common(way: str, one: str, other: str) -> None:
    assume(one != other)
    names = WAYS[way]

    def files(key: str) -> set[str]:
        way, stem = names.place(key)
        paths = {"/".join([*way, name]) for name in names.candidates(stem)}
        return {unicodedata.normalize("NFC", path).casefold() for path in paths} if names.folding else paths

    assert not files(one) & files(other)


@given(one=keys, other=keys)
@example(one="a", other="a.json/b")
@example(one="a.json", other="a.json.json/x")
def test_a_typed_file_is_never_where_a_directory_is(one: str, other: str) -> None:
    names = WAYS["typed"]
    directories = names.directories(other)
    above = {"/".join(directories[: count + 1]) for count in range(len(directories))}
    assert not {path_of(names, one, kind) for kind in TYPES} & above


@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=50))
@example(".DS_Store")
@example("a%2f.json")
@example("%41.json")
@example("x%+")
@example(".json")
def test_a_name_that_is_not_ours_is_no_object_or_reads_back(name: str) -> None:
    for names in WAYS.values():
        key = key_of(names, name)
        assert key is None or name in names.candidates(names.place(key)[1])


def test_the_seed_s_keys_have_the_seed_s_files() -> None:
    names = WAYS["typed"]
    assert path_of(names, "agent_configs/ceo", "application/json") == "agent_configs/ceo.json"
    assert path_of(names, "agent_configs/ceo/current", "application/json") == "agent_configs/ceo/current.json"
    assert path_of(names, "models/lora_adapters/ceo/v1.2") == "models/lora_adapters/ceo/v1.2.bin"
    assert path_of(WAYS["plain"], "path/to/file.json") == "path/to/file.json"
    assert len({path_of(names, key) for key in KEYS}) == len(KEYS)
