"""Runs frameworks' own suites against our classes; each comes with the source of the very version that is installed.

    python tests/integrations/suites/run.py [NAME…]

A suite is unpacked under the environment, never into this repository. What is deselected stands here with its reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = Path(sys.prefix) / "suites"


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        package: whose source it comes with.
        plugin: the module here that puts our class into it.
        tests: what pytest is given.
        least: so many of its tests must pass.
        without: tests that are left out, and why.
    """

    package: str
    plugin: str
    tests: tuple[str, ...]
    least: int
    without: tuple[tuple[str, str], ...] = ()


SUITES = {
    "langgraph-saver": Suite("langgraph", "langgraph_saver", ("-k", "sqlite and not sqlite_aes", "tests"), 654),
    "langgraph-store": Suite(
        "langgraph-checkpoint",
        "langgraph_store",
        ("tests/test_store.py",),
        117,
    ),
}

_MTIMES = "reads the in-memory store's private dictionary of times"
_RESUME = "tests/test_session_resume.py::TestHappyPath"
SUITES["claude"] = Suite(
    "claude-agent-sdk",
    "claude_sessions",
    (
        "tests/test_transcript_mirror.py",
        "tests/test_session_store_conformance.py",
        "tests/test_session_summary.py",
        "tests/test_session_import.py",
        "tests/test_session_resume.py",
        "tests/test_session_helpers_store.py",
    ),
    349,
    (
        (f"{_RESUME}::test_continue_picks_most_recent", _MTIMES),
        (f"{_RESUME}::test_continue_skips_sidechain_sessions", _MTIMES),
        (f"{_RESUME}::test_continue_tie_break_is_deterministic", _MTIMES),
    ),
)
_SQLITE = "tests/memory/test_session.py::test_sqlite_session"
_ENCRYPT = "tests/extensions/memory/test_encrypt_session.py::test_encrypted"
_INSIDE = "reaches into SQLiteSession: its connections, locks and tables"
_TEXT = "asks for SQLiteSession's own words when it is closed"
_NATIVE = "of pops that the SDK makes in SQLiteSession's own transaction, and by its class"
SUITES["openai"] = Suite(
    "openai-agents",
    "openai_sessions",
    (
        "tests/memory/test_session.py",
        "tests/memory/test_session_limit.py",
        "tests/extensions/memory/test_encrypt_session.py",
        "tests/memory/test_openai_responses_compaction_session.py",
        "tests/test_soft_cancel.py",
        "tests/test_max_turns.py",
        "tests/test_programmatic_tool_calling.py",
    ),
    423,
    (
        (f"{_SQLITE}_close_closes_worker_thread_connections", _INSIDE),
        (f"{_SQLITE}_reaps_connections_from_exited_worker_threads", _INSIDE),
        (f"{_SQLITE}_closes_retired_connections_before_the_next_allocation", _INSIDE),
        (f"{_SQLITE}_keeps_connections_of_live_worker_threads", _INSIDE),
        (f"{_SQLITE}_closed_rejects_empty_add_items", _TEXT),
        (f"{_SQLITE}_pop_item_skips_corrupt_most_recent", _INSIDE),
        (f"{_SQLITE}_pop_item_returns_none_after_dropping_only_corrupt_rows", _INSIDE),
        (f"{_SQLITE}_get_items_limit_skips_corrupt_newest_rows", _INSIDE),
        (f"{_SQLITE}_get_items_session_settings_limit_skips_corrupt_rows", _INSIDE),
        (f"{_SQLITE}_file_lock_is_shared_across_instances", _INSIDE),
        (f"{_SQLITE}_failed_add_items_releases_write_lock", _INSIDE),
        (f"{_SQLITE}_failed_clear_session_rolls_back", _INSIDE),
        (f"{_SQLITE}_failed_pop_item_releases_write_lock", _INSIDE),
        (f"{_SQLITE}_rollback_failure_evicts_connection", _INSIDE),
        (f"{_SQLITE}_close_retries_quarantined_connection", _INSIDE),
        (f"{_SQLITE}_post_commit_cancellation_propagates_after_known_outcome", _INSIDE),
        (f"{_ENCRYPT}_pop_wrong_key_preserves_recoverable_history", _NATIVE),
        (f"{_ENCRYPT}_pop_rechecks_authentication_after_expired_tail", _NATIVE),
        (f"{_ENCRYPT}_pop_authentication_is_atomic_with_concurrent_mutations", _NATIVE),
        (f"{_ENCRYPT}_pop_wrong_key_preserves_row_identity", _NATIVE),
        (f"{_ENCRYPT}_pop_cancellation_waits_for_authentication_rollback", _NATIVE),
    ),
)


def source_of(package: str) -> Path:
    """The directory of a package's source, fetched once."""
    wanted = version(package)
    place = KEPT / f"{package}-{wanted}"
    if not place.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(KEPT)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, f"{package}=={wanted}"], check=True)
        (archive,) = KEPT.glob(f"{package.replace('-', '[-_]')}-{wanted}.tar.gz")
        with tarfile.open(archive) as packed:
            root = packed.getnames()[0].partition("/")[0]
            packed.extractall(KEPT, filter="data")
        (KEPT / root).rename(place)
    return place


def run(name: str, suite: Suite) -> bool:
    """Runs one; whether all of it that is not left out has passed, and enough of it."""
    left_out = [option for test, _ in suite.without for option in ("--deselect", test)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", suite.plugin, "-o", "addopts=", "-p", "no:cacheprovider"]
    environment = os.environ | {"NO_DOCKER": "true", "PYTHONPATH": str(HERE)}
    told = subprocess.run(
        [*command, *left_out, *suite.tests],
        cwd=source_of(suite.package),
        env=environment,
        capture_output=True,
        text=True,
    )
    print(
        f"== {name}: {suite.package} {version(suite.package)}\n{told.stdout[-3000:]}{told.stderr[-1000:]}", flush=True
    )
    for test, reason in suite.without:
        print(f"   left out: {test}: {reason}")
    passed = re.search(r"(\d+) passed", told.stdout)
    return told.returncode == 0 and passed is not None and int(passed[1]) >= suite.least


if __name__ == "__main__":
    names = sys.argv[1:] or list(SUITES)
    failed = [name for name in names if not run(name, SUITES[name])]
    sys.exit(f"not as it should be: {', '.join(failed)}" if failed else 0)
