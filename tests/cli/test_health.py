"""Status and verify tell how things stand, and their exit codes say it too."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.hub.directory import HubDirectory
from holdfast.log import value
from holdfast.testing.corpus import log_of
from tests.cli.conftest import Run


def store_of(home: Path) -> Path:
    """Where the commands of these tests keep their store."""
    return home / ".local/share/holdfast"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nothing listens, and that nobody else gets meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def test_status_works_without_a_hub(hf: Run) -> None:
    hf("put", "k", "1")
    told = hf("status", "--json")
    assert told.code == 0
    (agent,) = told.json["agents"]
    assert (agent["agent"], agent["records"], agent["keys"], agent["outbox"]) == ("me", 1, 1, None)
    assert told.json["ok"] is True
    assert "NOT AT THE HUB" in hf("status").text


def test_status_counts_what_is_not_at_the_hub(hf: Run, nowhere: str) -> None:
    hf("init", "--hub", nowhere)
    assert hf("put", "k", "1").code == 0, "a hub that is away is not the writer's business"
    told = hf("status", "--json")
    assert told.code == 0
    assert told.json["agents"][0]["outbox"] == 1
    assert told.json["hubs"][0]["reachable"] is False
    assert "1 record" in hf("status").text


def test_put_says_that_the_hub_is_away(hf: Run, nowhere: str) -> None:
    assert hf("put", "k", "1", "--hub", nowhere).text == "stored state/k v1; not at the hub yet: 1 record\n"
    assert hf("put", "k", "2", "--hub", nowhere, "--json").json["outbox"] == 2


def test_a_rollback_says_so_too_and_status_does_not_need_the_token(hf: Run, nowhere: str) -> None:
    hf("put", "k", "1")
    assert hf("rollback", "k", "1", "--hub", nowhere).text == "state/k v2 is v1 again; not at the hub yet: 2 records\n"
    result = hf("status", "--hub", nowhere, "--token-file", "none")
    assert (result.code, "▲ not reached   no token to be read" in result.text) == (0, True)
    assert nowhere not in hf("status", "--hub", nowhere).text.split("not reached")[1]


def test_what_needs_the_hub_ends_with_7_when_it_is_away(hf: Run, nowhere: str) -> None:
    result = hf("inbox", "--hub", nowhere, "--json")
    assert result.code == 7
    assert result.error["code"] == "hub_unavailable"
    assert hf("inbox", "--hub", nowhere, "--local").code == 0
    assert hf("get", "k", "--agent", "far", "--hub", nowhere).code == 7


def test_verify_proves_a_store(hf: Run) -> None:
    for number in range(20):
        hf("put", f"k{number}", "x" * 200)
    hf("put", "large", "y" * 100_000)
    told = hf("verify", "--json")
    assert told.code == 0
    assert told.json["ok"] is True
    assert told.json["agents"][0]["records"] == 21
    assert hf("verify", "--agent", "stranger").code == 5


def test_verify_finds_a_changed_bit(hf: Run, home: Path) -> None:
    for number in range(50):
        hf("put", f"k{number}", "secret" * 30)
    path = store_of(home) / "agents/me/log.db"
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at] ^= 1
    path.write_bytes(data)
    assert hf("verify").code == 9


def test_verify_finds_a_record_that_was_rewritten(hf: Run, home: Path) -> None:
    """Page checksums are honest here: only the chain can tell."""
    for number in range(5):
        hf("put", f"k{number}", str(number))
    corpus = SqliteCorpus(store_of(home) / "agents/me/log.db")
    corpus.write(lambda tx: tx.execute("UPDATE rec SET body=? WHERE seq=3", (b"9",)))
    corpus.close()
    told = hf("verify", "--json")
    assert told.code == 9
    assert told.json["ok"] is False
    assert told.json["agents"][0]["findings"]


def test_verify_finds_a_missing_blob(hf: Run, home: Path) -> None:
    hf("put", "large", "y" * 100_000, "--text")
    (blob,) = [path for path in (store_of(home) / "blobs").rglob("*") if path.is_file()]
    os.unlink(blob)
    assert hf("verify").code == 9


def test_a_file_that_is_no_database_is_an_error_and_no_traceback(hf: Run, home: Path) -> None:
    hf("put", "k", "1")
    (store_of(home) / "agents/me/log.db").write_bytes(b"not a database" * 1000)
    result = hf("get", "k")
    assert result.code == 9
    assert result.err.startswith("error: ")


def test_scan_says_what_it_found_and_status_and_doctor_repeat_it(hf: Run, home: Path) -> None:
    for number in range(5):
        hf("put", f"k{number}", str(number))
    told = hf("scan", "--json")
    assert told.code == 0
    assert (told.json["ok"], told.json["agents"][0]["tip"]) == (True, 5)
    corpus = SqliteCorpus(store_of(home) / "agents/me/log.db")
    corpus.write(lambda tx: tx.execute("UPDATE rec SET body=? WHERE seq=3", (b"9",)))
    corpus.close()
    told = hf("scan", "--full", "--json")
    assert told.code == 9
    (detail,) = told.json["agents"][0]["details"]
    assert (detail["check"], detail["seq"]) == ("checksum", 3)
    assert told.json["agents"][0]["last_round"]
    assert hf("scan").code == 9, "it stays told"
    assert hf("status").code == 1
    states = {check["name"]: check["state"] for check in hf("doctor", "--json").json["checks"]}
    assert states["scan"] == "fail"


def test_scan_reads_a_hubs_directory_beside_the_hub(hf: Run, tmp_path: Path) -> None:
    assert hf("scan", "--data", tmp_path).code == 5
    home = HubDirectory(tmp_path / "hub", settle="acked")
    log = log_of(home.corpus, tmp_path)
    log.append([value("state", "k", "payload 07")])
    head = home.corpus.link_at(log.branch.id, 1)
    assert head is not None
    home.corpus.write(lambda tx: tx.advance(log.branch.id, 1, head))
    told = hf("scan", "--data", tmp_path / "hub", "--json")
    assert (told.code, told.json["ok"], told.json["agents"][0]["records"]) == (0, True, 1)
    home.corpus.write(lambda tx: tx.execute("UPDATE rec SET body=x'00'"))
    assert hf("scan", "--data", tmp_path / "hub").code == 9
    home.close()
