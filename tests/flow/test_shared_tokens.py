"""Several hub processes on one database share their tokens: made by the command, used at each, revoked at all."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.flow.hubs import HubProcess, until
from tests.services import database

__all__ = ["database"]
PROGRAM = "from holdfast.cli import main; main()"
PASSWORD = "s3cret-of-the-database"
WIDE = {"host": "0.0.0.0", "plain_http": True}


@pytest.fixture
def address(database: str) -> str:
    """The database's address with a password in it, which the server does not ask for and nobody must see."""
    return database.replace("holdfast@", f"holdfast:{PASSWORD}@")


@pytest.fixture
def said() -> list[str]:
    """Everything that commands wrote."""
    return []


def command(said: list[str], *words: str, code: int = 0, **variables: str) -> str:
    """What `holdfast` writes to its output."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    done = forks.run("-c", PROGRAM, *words, env={**plain, **variables})
    said += [done.stdout, done.stderr]
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout


def asked(hub: HubProcess, token: str = "", path: str = "/v1/records") -> int:
    """The status of one request."""
    line = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
    with contextlib.closing(line):
        line.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return line.getresponse().status


@pytest.fixture
def hubs(tmp_path: Path, address: str, said: list[str]) -> Iterator[tuple[HubProcess, HubProcess, Any]]:
    """Two processes that listen to every machine, on one database, and an administrator's token."""
    made = json.loads(
        command(said, "token", "create", "--kind", "person", "--name", "me", "--scope", "admin", "--json",
                HOLDFAST_DATABASE=address)
    )  # fmt: skip
    started = [HubProcess(tmp_path / f"hub{number}", database=address, **WIDE) for number in range(2)]
    yield (*started, made)
    for hub in started:
        hub.kill()


def test_a_token_works_at_both_processes_and_revoked_at_neither(
    hubs: tuple[HubProcess, HubProcess, Any], address: str, said: list[str]
) -> None:
    one, two, admin = hubs
    where = ("--database", address)
    assert [asked(hub) for hub in (one, two)] == [401, 401]
    assert [asked(hub, admin["token"]) for hub in (one, two)] == [200, 200]
    text = command(said, "token", "create", *where, "--kind", "agent", "--name", "ada").strip()
    token_id = text.split("_")[2]
    assert [asked(hub, text) for hub in (one, two)] == [200, 200], "made while both were running"
    listed = json.loads(command(said, "token", "ls", *where, "--json"))["tokens"]
    assert [(each["name"], each["state"]) for each in listed] == [("me", "valid"), ("ada", "valid")]
    feed = http.client.HTTPConnection("127.0.0.1", two.port, timeout=60)
    with contextlib.closing(feed):
        accept = {"Authorization": f"Bearer {text}", "Accept": "text/event-stream"}
        feed.request("GET", "/v1/feed", headers=accept)
        live = feed.getresponse()
        assert live.status == 200
        assert f"revoked: token {token_id}" in command(said, "token", "revoke", *where, token_id)
        until(lambda: [asked(hub, text) for hub in (one, two)] == [401, 401], "both refuse it")
        live.read()  # ends: the feed that was opened with it was ended
    assert [asked(hub, admin["token"]) for hub in (one, two)] == [200, 200]
    exported = command(said, "token", "export", *where)
    assert [json.loads(line)["id"] for line in exported.splitlines()] == [admin["id"], token_id]
    for process in (one, two):
        process.stop()
    used = {each["name"]: each["used"] for each in json.loads(command(said, "token", "ls", *where, "--json"))["tokens"]}
    assert used["me"], "noted when the processes stopped"
    assert PASSWORD not in "".join(said)


def test_no_secret_lies_in_the_database(database: str, said: list[str]) -> None:
    import psycopg

    text = command(said, "token", "create", "--database", database, "--kind", "service", "--name", "d").strip()
    _, _, token_id, secret, _ = text.split("_")
    with psycopg.connect(database) as connection:
        (row,) = connection.execute("SELECT token::text FROM holdfast.token").fetchall()
    assert token_id in row[0]
    assert secret not in row[0]


def test_what_is_refused_says_why_and_never_the_password(address: str, said: list[str]) -> None:
    away = address.replace("?host=", "?host=/nowhere")
    make = ("token", "create", "--kind", "service", "--name", "x")
    wide = ("serve", "--host", "0.0.0.0", "--plain-http", "--port", "0")
    for words, code, why in (
        (("token", "ls", "--database", address), 10, "no hub in the database"),  # and none is made by looking
        ((*make, "--database", address, "--data", "hub"), 2, "a directory and a database"),
        ((*make, "--database", away), 7, "cannot be reached"),
        ((*wide, "--database", address), 2, "no token is set"),
        ((*wide, "--database", away), 7, "cannot be reached"),
    ):
        assert command(said, *words, code=code) == ""
        assert why in said[-1], said[-1]
    assert PASSWORD not in "".join(said)
