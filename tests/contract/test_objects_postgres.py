"""PostgreSQL, a real one, keeps the laws of object stores."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import StorageDenied, StorageRefused, StorageUnavailable
from holdfast.objects import PostgresStore, open_store
from holdfast.objects.postgres_store import CHUNK_BYTES
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Forks, Races, at_once
from tests.services import Postgres as Server
from tests.services import shared_postgres

psycopg = pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server to stop and to start."""
    server = Server()
    yield server
    server.close()


@functools.cache
def address(directory: Path) -> str:
    """The database that belongs to a directory."""
    return shared_postgres().database()


class Postgres:
    """How it is made."""

    def make(self, directory: Path) -> PostgresStore:
        return PostgresStore(address(directory))


class TestPostgresBasic(Postgres, Basic): ...


class TestPostgresRanges(Postgres, Ranges): ...


class TestPostgresNames(Postgres, Names): ...


class TestPostgresListing(Postgres, Listing): ...


class TestPostgresConditions(Postgres, Conditions): ...


class TestPostgresRaces(Postgres, Races): ...


class TestPostgresForks(Postgres, Forks): ...


LARGE = 9 << 20


def large(number: int) -> bytes:
    """A body of many chunks that says whose it is in every byte."""
    return bytes([number]) * LARGE


def rows(store: PostgresStore, table: str) -> int:
    """How many rows a table of it has."""
    return int(store._server.ask(f"SELECT count(*) FROM {{s}}.{table}")[0])


def test_a_reader_goes_on_with_the_object_that_it_began(tmp_path: Path) -> None:
    with PostgresStore(address(tmp_path), connections=1) as store, PostgresStore(address(tmp_path)) as other:
        store.put("one", large(1))
        with store.get("one") as begun, store.get("one", start=LARGE - 10) as tail:
            first = next(iter(begun))
            other.put("one", large(2))
            other.delete("one")
            other.put("one", large(3))
            assert store.head("one").size == LARGE, "a stream takes no connection of the pool"
            assert first + begun.read() == large(1)
            assert tail.read() == large(1)[-10:]
        assert store.read("one") == large(3)
        assert rows(store, "chunk") == -(-LARGE // CHUNK_BYTES)
        store.put("one", b"small")
        assert rows(store, "chunk") == 0


def test_writers_at_once_leave_no_chunk_that_belongs_to_nobody(tmp_path: Path) -> None:
    with PostgresStore(address(tmp_path)) as store:
        at_once(6, lambda number: store.put("one", large(number)[: 3 << 20], metadata={"n": str(number)}) and None)
        assert set(store.read("one")) == {int(store.head("one").metadata["n"])}
        assert rows(store, "chunk") == 3


def test_it_works_again_when_the_server_does(own: Server) -> None:
    with PostgresStore(own.address()) as store:
        store.put("one", large(1))
        stream = iter(store.get("one"))
        next(stream)
        own.stop()
        with pytest.raises(StorageUnavailable):
            list(stream)
        for call in (lambda: store.put("two", b"2"), lambda: store.read("one"), lambda: list(store.list())):
            with pytest.raises(StorageUnavailable):
                call()
        assert not store.health().ok
        own.start()
        store.put("two", b"2")
        assert (store.read("one"), store.read("two")) == (large(1), b"2")
        assert store.health().ok
        etag = store.head("two").etag
        own.stop(signal.SIGQUIT)  # as a crash
        own.start()
        store.put("two", b"3", expect=etag)  # a write, which is not tried twice: its dead connection was noticed before


def test_who_may_not_is_denied_and_no_password_is_shown(own: Server) -> None:
    with psycopg.connect(own.address(), autocommit=True) as connection:
        connection.execute("CREATE ROLE ada LOGIN PASSWORD 'right-one'")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'right-one'")
    rules = own.data / "pg_hba.conf"
    rules.write_text("local all ada,reader scram-sha-256\n" + rules.read_text())
    own.stop()
    own.start()
    for user, password in (("ada", "wrong-one"), ("nobody", "wrong-one"), ("ada", "right-one")):
        address = f"postgresql://{user}:{password}@/postgres?host={own.directory}"
        with pytest.raises(StorageDenied) as denied:  # the last is let in, and may make no schema
            PostgresStore(address, schema="fresh")
        assert password not in f"{denied.value} {denied.value.hint}"
    with PostgresStore(own.address()) as store, psycopg.connect(own.address(), autocommit=True) as connection:
        store.put("one", b"1")
        connection.execute("GRANT USAGE ON SCHEMA holdfast_objects TO reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA holdfast_objects TO reader")
    with PostgresStore(f"postgresql://reader:right-one@/postgres?host={own.directory}") as store:
        assert store.read("one") == b"1"
        assert "right-one" not in f"{store!r} {store.name}"
        with pytest.raises(StorageDenied):
            store.put("one", b"2")


def test_what_is_no_address_is_refused_without_showing_it() -> None:
    for wrong in (
        "postgresql://u:se@cret@/x",
        "postgresql://h:port/x",
        "postgresql://h/x?ssl_min_protocol_version=TLSv1",
    ):
        with pytest.raises(StorageRefused) as refused:
            open_store(wrong)
        assert "cret" not in f"{refused.value} {refused.value.hint}"
    for option in ({"schema": "a; drop"}, {"connections": 0}, {"no_such": 1}):
        with pytest.raises(StorageRefused):
            open_store("postgresql://localhost/x", **option)


def test_two_schemas_are_two_stores_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    with PostgresStore(address(tmp_path)) as one, open_store(address(tmp_path), schema="second") as two:
        one.put("key", b"1")
        assert list(two.list()) == []
        assert one.name != two.name
        with psycopg.connect(address(tmp_path), autocommit=True) as connection:
            connection.execute("UPDATE second.version SET number = 99")
        with pytest.raises(StorageRefused, match="newer Holdfast"):
            PostgresStore(address(tmp_path), schema="second")


def test_what_is_acknowledged_is_on_the_servers_disk_whatever_its_default_is(tmp_path: Path) -> None:
    lazy = address(tmp_path)
    with psycopg.connect(lazy, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {lazy.split('/')[3].split('?')[0]} SET synchronous_commit = off")
    with PostgresStore(lazy) as store:
        assert store._server.ask("SHOW synchronous_commit")[0] == "on"
