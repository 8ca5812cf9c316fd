"""The hub's own streams: what it writes for plain clients, and what it decides; each write is in some log.

One stream per hub key and agent, a new incarnation of it with each generation of the hub, all of them in the hub's
corpus and through `log.Log`. A request's id is looked for in the transaction that writes it, so the same request adds
nothing, for ever. Each job signs where it leaves the stream, so what it wrote can be proven like a node's.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from holdfast import records
from holdfast.corpus import Branch as FileBranch
from holdfast.corpus import Stored
from holdfast.corpus.chains import Chains
from holdfast.corpus.sql import TAGS
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError, HubUnavailable, UsageError
from holdfast.hub.home import Home
from holdfast.hub.ingest import Elsewhere, Writer
from holdfast.hub.judge import HUB_AGENT
from holdfast.hub.meters import HUB, Intake
from holdfast.log import Draft, Log
from holdfast.protocol.ports import Label
from holdfast.records import check_names, head_message, stream_id
from holdfast.wire import Mark

LOGS_MAX: Final = 1_000
QUICK_BYTES: Final = 8 << 10
"""A record of so many bytes is hashed and packed on the loop: that takes less long than to ask another thread."""


class Desk:
    """What one job of one agent may do inside its transaction: look, and append.

    Args:
        tx: the open transaction.
        log: the agent's log in this generation.
        chains: the tree of branches in this transaction.
        on_loop: whether it runs where nobody may wait for a file.
    """

    def __init__(self, tx: SqlTransaction, log: Log, chains: Chains, on_loop: bool = False) -> None:
        self.tx = tx
        self._on_loop = on_loop
        self.agent = log.branch.agent
        self.log = log
        self._chains = chains
        self.written: list[Stored] = []

    def request(self, request_id: str) -> Stored | None:
        """What the request with this id wrote when it came before."""
        return self.first("request", request_id)

    def first(self, tag: str, value: str) -> Stored | None:
        """The first record that carries a tag with this value."""
        pos = self.tx.tagged(TAGS[tag], value)
        return None if pos is None else self._chains.at(pos)

    def newest(self, collection: str, key: str) -> Stored | None:
        """The key's value as of now in this transaction; None if it has none."""
        prior = self.tx.prior(self.agent, collection, key)
        return None if prior is None or prior.gone else self._chains.at(prior.pos)

    def look_ahead(self, keys: Sequence[tuple[str, str]], tag: str, values: Sequence[str]) -> None:
        """Says which (collection, key) `newest` will be asked for, and which values of a tag, when there are many."""
        if len(keys) > 1:
            self.tx.look_ahead(self.agent, keys, [(TAGS[tag], value) for value in values])

    def open_files(self) -> None:
        """To be called before a blob is read or written; returns only where the job may wait for a file."""
        if self._on_loop:
            raise Elsewhere

    def append(self, prepared: Callable[[SqlTransaction], list[Stored]]) -> Stored:
        """Writes one record that `OwnStreams.prepare` made ready.

        Raises:
            Conflict: its `expect` is not the key's current version; nothing was written.
        """
        (stored,) = prepared(self.tx)
        self.written.append(stored)
        return stored


class OwnStreams:
    """Writes into the hub's own streams; the loop's own.

    Args:
        home: the hub's directory.
        writer: commits the jobs.
        intake: counts what was written.
    """

    def __init__(self, home: Home, writer: Writer, intake: Intake | None = None) -> None:
        self._home = home
        self._writer = writer
        self._intake = intake or Intake()
        self._logs: OrderedDict[str, Log] = OrderedDict()

    async def write(self, agent: str, work: Callable[[Desk], Any], *, size: int = 0, quick: bool = False) -> Any:
        """The result of `work`, once what it appended would survive a power cut.

        Args:
            agent: whose stream it may append to.
            work: decides and appends inside the transaction; it may run twice, so it counts on nothing outside.
            size: about how many bytes it will write.
            quick: whether it writes a record or two, and calls `Desk.open_files` before it needs any.

        Raises:
            HubFull: no room; nothing was written.
            UsageError: a name that no agent can have.
        """
        log = self._logs.get(agent)
        if log is None:
            log = await self._open(agent)
        else:
            self._logs.move_to_end(agent)
        written: list[Stored] = []

        def job(tx: SqlTransaction) -> tuple[Any, list[Stored]]:
            chains = self._home.chains()
            desk = Desk(tx, log, chains, self._writer.on_loop)
            result = work(desk)
            if desk.written:
                self._sign(chains, log.branch, desk.written)
                self._writer.arrived(tx, desk.written[0].pos)
            written[:] = desk.written
            return result, desk.written

        found = await self._writer.run(job, size=size, quick=quick)
        self._intake.note(HUB, len(written), sum([len(each.body or b"") for each in written]))
        return found

    async def prepare(self, agent: str, draft: Draft) -> Callable[[SqlTransaction], list[Stored]]:
        """Makes a draft ready for `Desk.append`: hashed and packed, its blob stored. For threads, too."""
        log = self._logs.get(agent) or await self._open(agent)
        return self.ready(log, draft)

    async def log_of(self, agent: str) -> Log:
        """The agent's log in this generation, opened when it is first needed."""
        return self._logs.get(agent) or await self._open(agent)

    @staticmethod
    def ready(log: Log, draft: Draft) -> Callable[[SqlTransaction], list[Stored]]:
        """Makes a draft ready, with a log that is open already."""
        return log.job([draft])

    def check_blob(self, desk: Desk, digest: bytes) -> None:
        """Returns only if the bytes that a job is about to refer to are here: an erasure of the same bytes may have
        taken them away since they came.

        Raises:
            HubUnavailable: they are not; to be uploaded again.
        """
        desk.open_files()
        if self._home.blobs.missing([digest]):
            raise HubUnavailable(
                f"the bytes {digest.hex()} were taken away while they were uploaded",
                hint="upload them again",
                digest=digest.hex(),
            )

    async def _open(self, agent: str) -> Log:
        check_agent(agent)
        stream = stream_id(self._home.signer.public_key, agent)
        public_key = self._home.signer.public_key
        # One incarnation per generation, named by it: found again after a clean stop, another one after any other.
        name = hashlib.sha256(self._home.gen.encode() + stream).digest()[:10]
        inc = self._home.began_ms.to_bytes(6, "big") + name

        def job(tx: SqlTransaction) -> tuple[FileBranch, list[Stored]]:
            facts = self._home.chains().streams([stream]).get(stream)
            for branch in facts.branches.values() if facts else ():
                if branch.inc == inc:  # opened before a clean stop, or by another first request
                    at = (branch.base.seq, branch.base.link)
                    return FileBranch(branch.id, stream, inc, agent, public_key, public_key, True, *at, *at), []
            newest = max(facts.labels.values(), key=lambda label: label.inc) if facts and facts.labels else None
            base = newest.head if newest else Mark(0, records.genesis(stream))
            begin = FileBranch(
                0, stream, inc, agent, public_key, public_key, True, base.seq, base.link, base.seq, base.link
            )
            return tx.open_branch(begin, newest.branch if newest else None), []

        branch = await self._writer.run(job)
        log = self._logs[agent] = Log(self._home.corpus, branch, blobs=self._home.blobs, wall=self._home.wall)
        if len(self._logs) > LOGS_MAX:
            self._logs.popitem(last=False)
        return log

    def _sign(self, chains: Chains, branch: FileBranch, written: Sequence[Stored]) -> None:
        first, last = written[0].record, written[-1].record
        tip = Mark(last.seq, last.link)
        signature = self._home.signer.sign(head_message(branch.stream, tip.seq, tip.link))
        chains.sign(branch.id, first.seq - 1, tip, signature)
        chains.put_label(chains.number(branch.stream), Label(branch.inc, branch.id, tip, signature), branch.id)


def check_agent(agent: Any, *, hub: bool = True) -> str:
    """The name, if an agent can have it.

    Args:
        agent: the name.
        hub: whether the hub's own is one.

    Raises:
        UsageError: with the rule that it breaks.
    """
    if not isinstance(agent, str) or not agent:
        raise UsageError(f"an agent needs a name, got {agent!r:.80}", hint="such as 'recruiter-1'")
    check_names(records.PUT, "", "", agent)
    if agent == HUB_AGENT and not hub:
        raise UsageError("the name 'hub' is the hub's own", hint="write under another name, or ask /v1/decide")
    return agent


def verdict_of(error: HoldfastError) -> dict[str, Any]:
    """The error inside a per-item verdict."""
    found: dict[str, Any] = error.to_wire()["error"]
    return found
