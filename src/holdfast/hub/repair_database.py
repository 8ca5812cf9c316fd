"""Repairs a hub that lies in a database: rows that were changed or removed there, from what proves them.

The same bench as for a directory: a file is made anew of the newest backup, of what the database still proves, and of
what the standby has, and proven whole. Its rows then take the place of the database's in one transaction. That begins a
generation, too. What stood there before is kept in a schema of its own, with the account of what was done. Pages and
indexes of the database are its own business: this is about rows that say something else than was written.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from holdfast.clock import SYSTEM
from holdfast.corpus import SqliteCorpus, moving
from holdfast.corpus.index.fields import MARK
from holdfast.corpus.search import INDEXED
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.hub.home import begin_generation, generations
from holdfast.hub.migrate import DatabasePlace
from holdfast.hub.repair_parts import FILE, Tools
from holdfast.hub.repairing import Bench
from holdfast.integrity.backup import HUB, Part
from holdfast.integrity.checks import Finding
from holdfast.integrity.recovery import Outcome, Plan, Policy
from holdfast.integrity.scan import Scan, verify_corpus

KEPT: Final = ("cache", "field", "notice", "figure")
"""Tables beside the records that no backup holds and that no record says anything of: they stay as they are."""
REPLACED: Final = tuple(table for table in moving.TABLES if table.name not in KEPT)
DERIVED: Final = ("fts", "item", "entry", "mail", "delivery", "vec", "vmiss")
"""What is filled anew from the records; `near` goes with `vec`."""
_NAMES: Final = ", ".join(table.name for table in REPLACED)


def plan_database(
    address: str,
    tools: Tools = Tools(),  # noqa: B008 - both are frozen
    policy: Policy = Policy(),  # noqa: B008
) -> Plan:
    """What a hub's database needs, and what would be lost by it; changes nothing.

    Args:
        address: a libpq URL.
        tools: what it works with.
        policy: what is allowed beyond what is proven.

    Raises:
        HubUnavailable: the database cannot be reached.
        Locked: a hub is serving it.
        NoStore: there is no hub in it.
    """
    with DatabaseBench(address, tools, policy) as bench:
        return bench.look()


def repair_database(
    address: str,
    tools: Tools = Tools(),  # noqa: B008 - both are frozen
    policy: Policy = Policy(),  # noqa: B008
) -> Outcome:
    """Puts right what is proven, and what `policy` allows; leaves the rest as it is, with a report beside it.

    Args:
        address: a libpq URL.
        tools: what it works with.
        policy: what is allowed beyond what is proven.

    Raises:
        HubUnavailable: the database cannot be reached.
        Locked: a hub is serving it.
        NoStore: there is no hub in it.
    """
    with DatabaseBench(address, tools, policy) as bench:
        return bench.work(bench.look())


class DatabaseBench(Bench):
    """A hub's database that nobody serves, and room for a file of it."""

    def __init__(self, address: str, tools: Tools, policy: Policy) -> None:
        super().__init__(Path("database"), tools, policy, make=False)
        self._address = address
        self._schema = ""  # where what stood there is kept

    def __enter__(self) -> DatabaseBench:
        with contextlib.ExitStack() as stack:
            self.scratch = Path(stack.enter_context(TemporaryDirectory(prefix="holdfast-repair-")))
            self.home, self.file = self.scratch, self.scratch / FILE
            self.place = stack.enter_context(contextlib.closing(DatabasePlace(self._address)))
            self.corpus, self.blobs = self.place.corpus, self.place.blobs
            self._stack = stack.pop_all()
        return self

    def scan(self, found: Plan) -> Scan:
        """Proves what is in the database."""
        self.part = Part(HUB, FILE, self.corpus, self.blobs)
        scan = verify_corpus(self.corpus, self.blobs)
        found.findings += scan.findings
        if not self.corpus.one("SELECT count(*) FROM lineage")[0]:
            what = "the database knows of no generation, and this hub was served: its tables were emptied"
            found.findings.append(Finding("version", "", 0, what))
        self.note_blobs(self.corpus)
        return scan

    def key_rows(self) -> list[Any]:
        """The hub's keys."""
        with contextlib.suppress(HoldfastError):
            return list(self.place.keys())
        return []

    # -- evidence -----------------------------------------------------------------------------------------------

    def freeze(self, said: list[str]) -> str:
        """Copies the tables into a schema of their own, before anything is changed; its name."""
        stamp = time.strftime("%Y%m%dt%H%M%S", time.gmtime(self.tools.clock.now_ms() / 1000))
        schema = f"{self.corpus.database.schema}_quarantine_{stamp}"

        def job(tx: Any) -> None:
            tx.execute(f"CREATE SCHEMA {schema}")
            tx.execute(f"CREATE TABLE {schema}.account(at timestamptz NOT NULL DEFAULT now(), line text NOT NULL)")
            for name in [*(table.name for table in REPLACED), "meta", "counter"]:
                tx.execute(f"CREATE TABLE {schema}.{name} AS TABLE {name}")

        self.corpus.write(job)
        self._schema = schema
        return f"schema {schema}"

    def report(self, incident: str, line: dict[str, Any]) -> None:
        """Nothing more: the account beside the copies says why it was refused."""

    def note(self, line: dict[str, Any], outcome: Outcome) -> None:
        """Keeps what was done in the account beside the copies."""
        outcome.attempts.append(line)
        if self._schema:
            text = msgspec.json.encode(line).decode()
            self.corpus.write(lambda tx: tx.execute(f"INSERT INTO {self._schema}.account(line) VALUES(?)", (text,)))

    def set_aside(self, digest: bytes) -> str:
        """Removes the rows of a rotten blob, which nothing can be done with; there is no copy of it."""
        self.blobs.delete(digest)
        return ""

    # -- putting it back ----------------------------------------------------------------------------------------

    def put(self, made: Path) -> None:
        """Puts the rows of the file in the place of those that are there, all or none; then proves these, too.

        Raises:
            IntegrityError: what is there now does not prove; the rows from before are back in their place.
        """
        with contextlib.closing(SqliteCorpus(made / FILE, hub=True)) as source:
            self.corpus.write(lambda tx: self._replace(tx, source))
        scan = verify_corpus(self.corpus, self.blobs)
        if any(each.check != "blob" for each in scan.findings):
            self.corpus.write(self._take_back)
            raise IntegrityError(f"what was put into the database does not prove itself: {scan.findings[0]}")

    def _replace(self, tx: Any, source: SqliteCorpus) -> None:
        # What is declared of a collection is kept by the number of its name, which may be another one now.
        fields = tx.execute("SELECT f.id, n.s FROM field f JOIN name n ON n.id=f.coll")
        tx.execute(f"TRUNCATE {_NAMES}, {', '.join(DERIVED)} CASCADE")
        self.corpus.engine.on_rollback()  # drops what is remembered of names and numbers
        tx.pos = 0
        for table in REPLACED:
            for lot in moving.lots(source, self.corpus, table):
                tx.fill(table.name, table.columns, lot)
        tx.flush()
        for name, value in moving.metas(source).items():
            tx.set_meta(name, value)
        for name in (INDEXED, MARK, moving.MAILED):
            tx.execute("DELETE FROM meta WHERE k=?", (name,))
        self.place.settle(tx)
        for number, name in fields:
            tx.execute("UPDATE field SET coll=?, built=0 WHERE id=?", (tx.name(name), number))
        found = generations(tx)
        begin_generation(tx, found, SYSTEM.now_ms())

    def _take_back(self, tx: Any) -> None:
        tx.execute(f"TRUNCATE {_NAMES}, meta")
        for name in [*(table.name for table in REPLACED), "meta"]:
            tx.execute(f"INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT * FROM {self._schema}.{name}")
        tx.pos = tx.execute("SELECT coalesce(max(pos), 0) FROM rec")[0][0]
        self.corpus.engine.on_rollback()  # what is remembered of names and numbers
