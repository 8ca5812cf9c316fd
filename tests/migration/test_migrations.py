"""Formats only move forward: an older file is brought up to date, a newer one is refused and left as it is.

The next version is simulated honestly: a copy of the package with one more script, run in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.collections import mailbox
from holdfast.corpus import SqliteCorpus, index
from holdfast.corpus.engine import Engine
from holdfast.corpus.scripts import migrations
from holdfast.errors import HoldfastError, UsageError
from holdfast.integrity import verify_corpus
from holdfast.log import drafts
from holdfast.query import where
from holdfast.testing.corpus import content, log_of, put

PACKAGE = Path(holdfast.__file__).parent
SCRIPTS = sorted(path.name for path in (PACKAGE / "corpus" / "migrations").glob("*.sql"))
ROLES = {"agent": ("", "agent"), "hub": ("", "hub")}

USE = """
import json, sys
from pathlib import Path
from holdfast.corpus import SqliteCorpus, index
from holdfast.errors import HoldfastError
from holdfast.integrity import verify_corpus
from holdfast.testing.corpus import log_of, put

path = Path(sys.argv[1])
try:
    corpus = SqliteCorpus(path, hub=sys.argv[2] == "hub")
except HoldfastError as error:
    print(json.dumps({"error": error.code}))
    sys.exit()
put(log_of(corpus, path.parent), "by the next", 2)
tables = [row[0] for row in corpus.engine.query("SELECT name FROM sqlite_schema")]
findings = [str(finding) for finding in verify_corpus(corpus).findings]
print(json.dumps({"added": "added" in tables, "findings": findings, "last": corpus.last(),
                  "format": corpus.engine.one("PRAGMA user_version")[0]}))
corpus.close()
"""


def next_version(directory: Path, script: str, sql: str) -> Path:
    """A copy of the package with one more migration; what to put on the path."""
    root = directory / "next"
    # With what is compiled, which is as good there; but for what somebody is compiling at this moment.
    shutil.copytree(PACKAGE, root / "holdfast", ignore=shutil.ignore_patterns("*.pyc.*"))
    (root / "holdfast" / "corpus" / "migrations" / script).write_text(sql)
    return root


def use(root: Path, path: Path, role: str) -> dict[str, Any]:
    """What a process of that version makes of the file."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-c", USE, str(path), role]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def old_file(path: Path, role: str) -> None:
    corpus = SqliteCorpus(path, hub=role == "hub")
    for number in range(10):
        put(log_of(corpus, path.parent), f"k{number}", number)
    corpus.close()


@pytest.mark.parametrize(
    ("role", "script"), [("agent", "0090_added.sql"), ("hub", "0090_added.sql"), ("hub", "hub_0090_added.sql")]
)
def test_an_older_file_is_brought_up_to_date_and_the_newer_one_is_refused(
    tmp_path: Path, role: str, script: str
) -> None:
    path = tmp_path / "file.db"
    old_file(path, role)
    before = len(migrations(ROLES[role]))
    root = next_version(tmp_path, script, "CREATE TABLE added(x INTEGER) STRICT;\n")
    wanted = {"added": True, "findings": [], "last": 11, "format": before + 1}
    assert use(root, path, role) == wanted
    with pytest.raises(UsageError, match="newer Holdfast") as caught:
        SqliteCorpus(path, hub=role == "hub")
    assert f"format {before + 1}, this knows {before}" in str(caught.value)
    assert "update" in caught.value.hint
    assert use(root, path, role) == wanted | {"last": 12}, "the refusal changed nothing"
    fresh = tmp_path / "fresh.db"
    assert use(root, fresh, role) == wanted | {"last": 1}, "a new file gets all scripts at once"


def test_a_script_of_the_agents_part_runs_on_a_hub_whose_own_script_has_run(tmp_path: Path) -> None:
    """The count in a hub's file must mean the same scripts after any role has got another one."""
    names = [text.splitlines()[0] for text in migrations(("", "hub"))]
    assert sorted(names) == sorted(text.splitlines()[0] for role in ("", "hub") for text in migrations((role,)))
    root = next_version(tmp_path, "0090_added.sql", "-- next\n")
    code = "from holdfast.corpus.scripts import migrations; print(migrations(('', 'hub')).index('-- next\\n'))"
    environment = os.environ | {"PYTHONPATH": str(root)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == f"{len(names)}\n", result.stderr


def test_scripts_that_share_a_file_have_numbers_of_their_own() -> None:
    """Only the first of each role may share a number: the order of later ones must never depend on the role."""
    numbers = defaultdict(list)
    for name in SCRIPTS:
        found = re.fullmatch(r"(?:([a-z]+)_)?(\d{4})(?:_[a-z0-9_]+)?\.sql", name)
        assert found, name
        if found[1] in (None, "hub"):
            numbers[found[2]].append(name)
    assert numbers.pop("0001") == ["0001_start.sql", "hub_0001_start.sql"]
    assert [names for names in numbers.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE added(x);\nCREATE TABLE rec(x);\n", "CREATE TABLE added(x); nonsense;\n"]
)
def test_a_script_that_fails_leaves_the_file_as_it_was(tmp_path: Path, sql: str) -> None:
    path = tmp_path / "log.db"
    old_file(path, "agent")
    root = next_version(tmp_path, "0090_added.sql", sql)
    assert set(use(root, path, "agent")) == {"error"}
    corpus = SqliteCorpus(path)
    assert corpus.engine.query("SELECT name FROM sqlite_schema WHERE name='added'") == []
    assert corpus.last() == 10
    assert verify_corpus(corpus).sound
    corpus.close()


@pytest.mark.parametrize(("role", "before"), [("agent", 2), ("hub", 3)])
def test_a_file_from_before_there_was_an_index_gets_one_and_is_found_by_it(
    tmp_path: Path, role: str, before: int
) -> None:
    path = tmp_path / "old.db"
    corpus = SqliteCorpus(path, hub=role == "hub")
    log = log_of(corpus, tmp_path)
    for number in range(10):
        put(log, f"k{number}", {"n": number}, "numbers")
    later = "".join(migrations(ROLES[role])[before:])
    for table in dict.fromkeys(re.findall(r"CREATE TABLE (\w+)", later)):  # a script may make one anew
        corpus.write(lambda tx, table=table: tx.execute(f"DROP TABLE {table}"))
    corpus.write(lambda tx: tx.execute(f"PRAGMA user_version={before}"))
    corpus.close()
    corpus = SqliteCorpus(path, hub=role == "hub")
    assert corpus.engine.one("PRAGMA user_version")[0] == len(migrations(ROLES[role]))
    index.declare(corpus, "numbers", ["n"])
    page = index.find(corpus, index.Query(collection="numbers", condition=where("n") > 6, order=("-n",)), content)
    assert ([stored.record.key for stored in page.found], page.way) == (["k9", "k8", "k7"], "collect:n")
    corpus.close()
    beheld = SqliteCorpus(path, hub=role == "hub", read_only=True)
    asked = index.Query(collection="numbers", condition=where("n") > 6, order=("-n",))
    assert [stored.record.key for stored in index.find(beheld, asked, content).found] == ["k9", "k8", "k7"]
    beheld.close()


def test_a_hub_from_before_its_mail_could_be_narrowed_fills_it_anew(tmp_path: Path) -> None:
    corpus = SqliteCorpus(tmp_path / "old.db", hub=True)
    log = log_of(corpus, tmp_path)
    log.append([drafts.message({"body": "hi", "to": "people", "task": "t"}, msg_id="m", kind="alert")])
    assert mailbox.fill(corpus, None) == 1
    scripts = migrations(ROLES["hub"])
    number = next(n for n, script in enumerate(scripts) if "DROP TABLE mail" in script)
    before = re.findall(r"^CREATE (?:TABLE mail\(|INDEX mail_).*?;$", scripts[number - 1], re.S | re.M)
    later = [f"DROP TABLE {table}" for table in re.findall(r"CREATE TABLE (\w+)", "".join(scripts[number + 1 :]))]
    for statement in [*later, "DROP TABLE mail", *before]:
        corpus.write(lambda tx, statement=statement: tx.execute(statement))
    corpus.write(lambda tx: tx.execute(f"PRAGMA user_version={number}"))
    corpus.close()
    corpus = SqliteCorpus(tmp_path / "old.db", hub=True)
    assert corpus.query("SELECT * FROM mail") == []
    assert mailbox.fill(corpus, None) == 1
    assert corpus.query("SELECT msg, kind, task FROM mail") == [("m", "alert", "t")]
    corpus.close()


def test_every_shipped_role_makes_a_file(tmp_path: Path) -> None:
    roles = {name.split("_")[0] for name in SCRIPTS if not name[0].isdigit()} - {"hub", "agent"}
    for combined in [("", "agent"), ("", "hub"), *((role,) for role in sorted(roles))]:
        path = tmp_path / f"{'-'.join(combined)}.db"
        for _ in range(2):
            engine = Engine(path, roles=combined)
            assert engine.one("PRAGMA user_version")[0] == len(migrations(combined)) > 0
            engine.close()


def test_what_is_not_a_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"these are somebody's notes\n" * 400)
    with pytest.raises(HoldfastError):
        SqliteCorpus(path)
    assert path.read_bytes() == b"these are somebody's notes\n" * 400


def _create(path: Path, who: int, ready: Any) -> None:
    ready.wait()
    corpus = SqliteCorpus(path)
    log = log_of(corpus, path.parent)
    for number in range(20):
        put(log, f"{who}/{number}", who)
    corpus.close()


@pytest.mark.parametrize("turn", range(3))
def test_processes_that_make_the_same_file_at_once_make_one(tmp_path: Path, turn: int) -> None:
    path, spawn = tmp_path / "log.db", multiprocessing.get_context("spawn")
    ready = spawn.Barrier(4)
    started = [spawn.Process(target=_create, args=(path, who, ready)) for who in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * 4
    corpus = SqliteCorpus(path)
    assert corpus.last() == 80
    assert len(corpus.branches()) == 1
    assert content(corpus.newest("ada", "state", "3/19")) == 3
    assert [str(finding) for finding in verify_corpus(corpus).findings] == []
    corpus.close()
