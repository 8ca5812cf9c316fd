"""Runs frameworks' own suites against our classes; each comes with the source of the very version that is installed.

    python -m tests.integrations.suites.run [NAME…]

A suite is unpacked under the environment, never into this repository. What is deselected stands here with its reason. A
suite passes if nothing of it failed, as many of its tests passed as stands here, and as many objects of ours were made
in it: so neither an empty collection nor one with somebody else's class passes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.integrations.suites.sources import Away, source_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
KEPT = Path(sys.prefix) / "suites"
LIMIT_S = 1800.0


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        package: whose source it comes with, or in which it comes itself.
        plugin: the module here that puts our class into it; for a suite that comes in a package, what inherits it.
        tests: what pytest is given; nothing: the module itself.
        least: so many of its tests must pass.
        made: so many objects of ours must have been made in it.
        without: tests that are left out, and why.
        options: pytest's, besides.
    """

    package: str
    plugin: str
    tests: tuple[str, ...]
    least: int
    made: int
    without: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()


SUITES = {
    "langgraph-saver": Suite(
        "langgraph",
        "langgraph_saver",
        ("-k", "sqlite and not sqlite_aes", "tests"),
        least=654,
        made=640,
        options=("--retries", "3", "--retry-delay", "1"),  # some of them compare wall clocks, to a tenth of a second
    ),
    "langgraph-store": Suite("langgraph-checkpoint", "langgraph_store", ("tests/test_store.py",), least=117, made=88),
    "fsspec": Suite("fsspec", "fsspec_files", (), least=137, made=137),
    "fastmcp": Suite(
        "fastmcp",
        "fastmcp_values",
        (
            "tests/server/test_event_store.py",
            "tests/server/middleware/test_caching.py",
            "tests/server/auth/test_oauth_proxy_storage.py",
            "tests/server/auth/oauth_proxy",
            "tests/server/test_sessions.py",
            "tests/server/test_session_provider.py",
            "tests/client/client/test_kv_response_cache.py",
            "tests/client/auth/test_client_credentials.py",
            "tests/client/auth/test_oauth_client.py",
        ),
        least=473,
        made=364,
    ),
    "langchain": Suite(
        "langchain-tests", "langchain_stores", (), least=65, made=58, options=("-o", "asyncio_mode=auto")
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
    least=349,
    made=325,
    without=(
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
    least=423,
    made=110,
    without=(
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

_LOST = "asks that the storage is lost with its process, which ours is not"
_STASH = "tests/strands/session/test_snapshot_session_manager.py::TestSnapshotStashIntegration::test"
SUITES["strands"] = Suite(
    "strands-agents",
    "strands_storage",
    (
        "tests/strands/storage/test_in_memory_storage.py",
        "tests/strands/storage/test_storage.py",
        "tests/strands/storage/search",
        "tests/strands/session/test_snapshot_session_manager.py",
        "tests/strands/agent/test_agent_storage.py",
        "tests/strands/vended_plugins/context_offloader",
        "tests/strands/vended_memory_stores/file_memory_store",
        "tests/strands/_context_manager",
    ),
    least=753,
    made=176,
    without=(
        (f"{_STASH}_save_includes_inline_stash_for_ephemeral_storage", _LOST),
        (f"{_STASH}_save_omits_stash_when_empty", _LOST),
        (f"{_STASH}_immutable_snapshot_includes_stash", _LOST),
        (f"{_STASH}_ephemeral_detection_survives_namespacing", _LOST),
        (
            "tests/strands/_context_manager/test_context_manager.py"
            "::TestStashIsDurable::test_false_with_namespaced_in_memory_storage",
            _LOST,
        ),
        (
            "tests/strands/_context_manager/test_stash.py::TestStorageTypeName::test_returns_class_name_of_base_storage",
            "asks for the name of the in-memory class",
        ),
        (
            "tests/strands/storage/search/test_keyword.py::TestKeywordSearch::test_skips_keys_where_read_returns_none",
            "writes into the in-memory class's private dictionary",
        ),
    ),
)


def wrong(suite: Suite, code: int, said: str) -> str:
    """What is wrong with what a run of a suite has said; nothing: an empty text."""
    if code:
        return f"pytest ended with {code}"
    passed = re.search(r"(\d+) passed", said)
    if passed is None or int(passed[1]) < suite.least:
        return f"{passed[1] if passed else 'none'} of its tests passed, {suite.least} is the least"
    made = re.search(r"objects of ours: (\d+)", said)
    if made is None or int(made[1]) < suite.made:
        return f"{made[1] if made else 'no'} objects of ours were made in it, {suite.made} is the least"
    return ""


def run(name: str) -> str:
    """Runs one, and prints what it said; returns what is wrong, or nothing."""
    suite = SUITES[name]
    try:
        place = source_of(suite.package, KEPT) if suite.tests else ROOT
    except Away as error:
        must = os.environ.get("CI") == "true"
        print(f"== {name}: {'not run' if must else 'SKIPPED'}: no network to fetch it with: {error}", flush=True)
        return "its source could not be fetched" if must else ""
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-o", "timeout=120", "-p", "no:cacheprovider"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
    command += ["-p", "holdfast_nodes", *suite.options]
    command += [option for test, _ in suite.without for option in ("--deselect", test)]
    command += ["-p", suite.plugin, *suite.tests] if suite.tests else [str(HERE / f"{suite.plugin}.py")]
    environment = os.environ | {"NO_DOCKER": "true", "PYTHONPATH": str(HERE)}
    try:
        told = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"it was not over after {LIMIT_S:.0f} s"
    fault = wrong(suite, told.returncode, told.stdout)
    left_out = "".join(f"   left out: {test}: {reason}\n" for test, reason in suite.without)
    head = f"== {name}: {suite.package} {version(suite.package)}"
    shown = told.stdout[-20_000 if fault else -1500 :] + told.stderr[-2000:]
    print(f"{head}\n{shown}{left_out}{head}: {fault or 'as it should be'}", flush=True)
    return fault


def main(names: list[str]) -> int:
    """Runs the named suites, or all of them; one at a time for each processor."""
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        faults = {name: fault for name, fault in zip(names or SUITES, pool.map(run, names or SUITES), strict=True)}
    failed = [f"{name}: {fault}" for name, fault in faults.items() if fault]
    print("\n".join(["not as it should be:", *failed]) if failed else f"{len(faults)} suites are as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
