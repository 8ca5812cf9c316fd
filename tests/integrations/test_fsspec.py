"""fsspec's memory file system as the oracle; versions, every place, two machines."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

fsspec = pytest.importorskip("fsspec", reason=MISSING)

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

from holdfast.integrations.fsspec import HoldfastFileSystem  # noqa: E402

PATHS = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PATHS, st.binary(max_size=20)),
        st.tuples(st.just("append"), PATHS, st.binary(max_size=20)),
        st.tuples(st.just("cat_file"), PATHS, st.none()),
        st.tuples(st.just("some"), PATHS, st.tuples(st.integers(0, 9), st.integers(0, 20))),
        st.tuples(st.just("rm_file"), PATHS, st.none()),
        st.tuples(st.just("cp_file"), PATHS, st.sampled_from(["copy", "d/copy"])),
        st.tuples(st.just("mv"), PATHS, st.sampled_from(["moved", "d/moved"])),
        st.tuples(st.just("rm"), st.sampled_from(["d", "a"]), st.none()),
        st.tuples(st.just("look"), PATHS, st.none()),
    ),
    max_size=12,
)


def do(fs: Any, what: str, path: str, given_: Any) -> Any:
    try:
        if what in ("write", "append"):
            with fs.open(path, "wb" if what == "write" else "ab") as file:
                file.write(given_[:5])
                file.write(given_[5:])
            return None
        if what == "some":
            return fs.cat_file(path, *given_)
        if what == "rm":
            return fs.rm(path, recursive=True) if fs.find(path) else None  # in memory an empty one is still there
        if what == "look":
            return fs.info(path)["size"], fs.isfile(path), fs.isdir(path)
        return getattr(fs, what)(*[path, given_][: 1 if given_ is None else 2])
    except FileNotFoundError:
        return "not found"


def files(fs: Any) -> dict[str, bytes]:
    return {path.lstrip("/"): fs.cat_file(path) for path in fs.find("")}


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_files_are_what_they_are_in_memory(steps: list[tuple[str, str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
        ours, theirs = HoldfastFileSystem(store), MemoryFileSystem(skip_instance_cache=True)
        theirs.store, theirs.pseudo_dirs = {}, [""]
        for what, path, given_ in steps:
            assert do(ours, what, path, given_) == do(theirs, what, path, given_), (what, path, given_)
            assert files(ours) == files(theirs)


def test_it_is_the_same_at_every_place(kept: dict[str, Any]) -> None:
    fs = fsspec.filesystem("holdfast", **kept)
    assert isinstance(fs, HoldfastFileSystem)
    with fs.open("reports/june.csv", "w") as file:
        file.write("1,2\n")
    first = fs.info("reports/june.csv")
    fs.pipe_file("reports/june.csv", b"3,4\n")
    with fs.open("reports/june.csv") as file:
        assert file.read() == b"3,4\n"
    assert [each["size"] for each in fs.versions("reports/june.csv")] == [4, 4]
    assert fs.cat_file("reports/june.csv", at=first["revision"]) == b"1,2\n"
    assert fs.ls("", detail=False) == ["reports"]
    assert fs.ls("reports", detail=False) == fs.ls("reports/june.csv", detail=False) == ["reports/june.csv"]
    assert fs.glob("**/*.csv") == ["reports/june.csv"]
    assert fs.modified("reports/june.csv") >= fs.created("reports/june.csv")
    with pytest.raises(FileExistsError):
        fs.open("reports/june.csv", "xb")
    for missing in (fs.info, fs.ls, fs.cat_file, fs.rm_file):
        with pytest.raises(FileNotFoundError):
            missing("reports/july.csv")

    fs.mkdir("empty/dir")
    assert (fs.isdir("empty/dir"), fs.ls("empty", detail=False)) == (True, ["empty/dir"])
    with pytest.raises(FileExistsError):
        fs.makedirs("empty/dir")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("empty")
    fs.rmdir("empty/dir")
    assert not fs.exists("empty/dir")
    with pytest.raises(FileNotFoundError):
        fs.rmdir("empty/dir")

    class Stop(Exception):
        pass

    def stop_half_way() -> None:
        with fs.transaction, fs.open("half", "wb") as file:
            file.write(b"never whole")
            raise Stop

    with pytest.raises(Stop):
        stop_half_way()
    assert not fs.exists("half")
    fs.rm("reports", recursive=True)
    assert fs.find("") == []


def test_a_file_is_read_on_another_machine(machines: tuple[Store, Store]) -> None:
    name = fresh()
    there, here = (HoldfastFileSystem(each, shared=True, collection=name) for each in machines)
    there.pipe_file("a", b"from there")
    assert here.cat_file("a") == b"from there"
    here.pipe_file("a", b"and back")
    assert there.cat_file("a") == b"and back"
