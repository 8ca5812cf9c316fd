"""The commands about how much stays: budgets are set and shown, room is made and given back, archives are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.corpus import search
from holdfast.corpus.compacting import compact
from holdfast.errors import Locked
from holdfast.node.directory import Limits
from holdfast.node.store import Store
from holdfast.retention import MB
from tests import forks
from tests.cli.conftest import Run
from tests.flow.hubs import HubProcess, until

ROOMY = Limits(floor_bytes=0, ballast_bytes=0, scan_s=0)


@pytest.fixture
def hub(home: Path) -> Iterator[HubProcess]:
    """A hub that settles what it has acknowledged."""
    process = HubProcess(home / "hub")
    yield process
    process.kill()


def store_of(home: Path) -> Path:
    return home / ".local" / "share" / "holdfast"


def test_a_budget_is_set_shown_and_kept_to(hf: Run, home: Path, hub: HubProcess) -> None:
    said = hf("retention", "set", "--role", "coder", "--context", "32000", "--json").json
    assert (said["max_bytes"], said["days"]) == (1024 * MB + 48 * MB, 0)
    assert hf("retention", "set", "--max-bytes", "512MB", "--days", "30", "--keep", "tasks").text.startswith(
        "me: 512 MB"
    )
    with Store(store_of(home), "me", hub=hub.url, limits=ROOMY) as store:
        for number in range(40):
            store.put(f"page/{number}", os.urandom(60_000))
        assert store.flush()
        corpus = store._log.corpus
        until(lambda: search.pending(corpus) == 0, "what may leave has been read for the index")
    (row,) = hf("retention", "show", "--json").json["agents"]
    assert (row["agent"], row["max_bytes"], row["days"], row["keep"]) == ("me", 512 * MB, 30, ["tasks"])
    assert row["used"] > 2 * MB
    assert not row["full"]
    assert "512 MB" in hf("retention", "show").text
    # A smaller one has bodies leave, when somebody asks the hub.
    assert hf("retention", "set", "--max-bytes", "4MB").code == 0
    assert hf("retention", "pin", "page/7").code == 0
    would = hf("retention", "apply", "--dry-run", "--hub", hub.url, "--json").json
    assert would["dry_run"]
    assert would["agents"][0]["bodies"] > 3
    did = hf("retention", "apply", "--hub", hub.url, "--json").json["agents"][0]
    assert did["bodies"] >= would["agents"][0]["bodies"]
    assert did["standing"]["evicted"] == did["bodies"]
    assert "left" in hf("retention", "apply", "--hub", hub.url).text
    # What left is read through the hub; what is pinned needs none.
    assert len(hf("get", "page/0", "--hub", hub.url).out) >= 60_000
    hub.kill()
    assert hf("get", "page/0").code == 7
    assert len(hf("get", "page/7").out) >= 60_000
    assert hf("retention", "unpin", "page/7").code == 0
    result = hf("retention", "apply", "--hub", hub.url)
    assert result.code == 7
    assert hf("verify").code == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--max-bytes", "much"), "is no size"),
        (("--max-bytes", "1MB"), "too small"),
        (("--role", "typist"), "no role 'typist'"),
        (("--context", "5"), "scales a role's budget"),
        (("--days", "-1"), "a number of days"),
    ],
)
def test_a_retention_that_cannot_be_meant_is_refused(hf: Run, words: tuple[str, ...], what: str) -> None:
    result = hf("retention", "set", *words)
    assert result.code == 2
    assert what in result.err
    assert "hint: " in result.err


def fill(path: Path, agent: str = "me") -> None:
    """A log of some megabytes, most of them free again."""
    with Store(path, agent, hub=[], limits=ROOMY) as store:
        for number in range(60):
            store.put("again", {"text": f"lighthouse {number} " * 3_000, "number": number})
            store.put(f"key/{number}", os.urandom(40_000))
        corpus = store._log.corpus

        def drop(tx: object) -> None:
            corpus.engine.writer_execute("UPDATE rec SET body=NULL, why=1 WHERE seq<118")

        corpus.write(drop)


def test_compact_gives_back_what_is_free_and_leaves_a_sound_file(hf: Run, home: Path) -> None:
    fill(store_of(home))
    done = hf("compact", "--json").json
    assert done["after"] < done["before"] // 3
    assert done["busy"] == []
    assert hf("verify").code == 0
    assert hf("get", "again").text.count("lighthouse 59") == 3_000
    with Store(store_of(home), "me", hub=[], limits=ROOMY) as store:
        assert store._log.corpus.engine.scrub() == []
        assert store.search("lighthouse")[0].key == "again"
        store.put("after", 1)
        busy = hf("compact")
        assert busy.code == 3
        assert "open elsewhere" in busy.err
        with pytest.raises(Locked):
            compact(store._log.corpus.engine.path)
        store.put("still", 1)
    assert "given back" in hf("compact").text
    assert hf("get", "still").text == "1\n"


KILL = """
import os, sys
from pathlib import Path
from holdfast.corpus import compacting
at, seen = int(sys.argv[2]), [0]

def counted(real):
    def call(*args, **kwargs):
        seen[0] += 1
        if seen[0] == at:
            os._exit(9)
        made = real(*args, **kwargs)
        return made
    return call

compacting.os.replace = counted(os.replace)
compacting.os.fsync = counted(os.fsync)
compacting.Path.unlink = counted(Path.unlink)
compacting._copy = counted(compacting._copy)
compacting.sync_directory = counted(compacting.sync_directory)
compacting.compact(Path(sys.argv[1]))
"""


def test_a_killed_compact_leaves_the_old_file_or_the_new_one(home: Path) -> None:
    fill(home / "node")
    path = home / "node" / "agents" / "me" / "log.db"
    whole = path.stat().st_size
    codes, sizes = [], []
    for at in (3, 4, 5, 6, 7, 99):
        codes.append(forks.run("-c", KILL, path, str(at)).returncode)
        sizes.append(path.stat().st_size)
        with Store(home / "node", "me", hub=[], limits=ROOMY) as store:
            assert store.get("again")["number"] == 59
            assert store.verify().findings == []
    assert codes == [9] * 5 + [0]
    assert sizes[0] >= whole > sizes[-1] * 2
    assert not list(path.parent.glob("*.compact"))


def test_a_hub_is_compacted_and_its_archive_listed_proven_and_searched(hf: Run, home: Path, hub: HubProcess) -> None:
    with Store(store_of(home), "me", hub=hub.url, limits=ROOMY) as store:
        for number in range(50):
            store.post({"said": f"lighthouse {number}", "text": os.urandom(3_000).hex()}, to="bob", msg_id=f"m{number}")
        assert store.flush()
    hub.stop()
    where = f"file:{home / 'archive'}"
    said = hf("archives", "run", where, "--from", home / "hub", "--older-than", "0", "--drop", "--json").json
    assert (said["records"], said["dropped"], said["files"]) == (50, 50, 1)
    assert hf("archives", "run", where, "--from", home / "hub", "--older-than", "1d", "--json").json["records"] == 0
    (entry,) = hf("archives", "ls", where, "--json").json["files"]
    assert (entry["records"], entry["agents"]) == (50, ["me"])
    assert entry["name"] in hf("archives", "ls", where).text
    assert hf("archives", "verify", where, "--json").json == {"records": 50, "findings": []}
    (line,) = hf("archives", "cat", where, "--grep", 'Lighthouse 7"', "--of", "me").text.splitlines()
    assert json.loads(line)["value"]["body"]["said"] == "lighthouse 7"
    assert hf("archives", "cat", where, "--collection", "state").out == b""
    done = hf("compact", "--data", home / "hub", "--json").json
    assert done["after"] < done["before"]
    hub.start()
    assert "lighthouse 49" in hf("inbox", "--to", "bob", "--hub", hub.url).text
    hub.stop()
    (file,) = (home / "archive").glob("*.zst*")
    file.write_bytes(file.read_bytes()[:-20])
    assert hf("archives", "verify", where).code in (9, 12)
    assert hf("archives", "ls", f"file:{home / 'nothing'}").code == 2
