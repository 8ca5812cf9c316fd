"""How a hub is to run: everything that `serve` and `create_app` can be told, in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from holdfast.corpus.space import BALLAST_BYTES, FLOOR_BYTES
from holdfast.errors import UsageError

Settle = Literal["acked", "backups"]
LIVE: Final = (
    *("rate", "concurrent", "pause_s", "floor_bytes", "backup_every", "backup_drill_every", "backup_preset"),
    *("notify_hosts", "told", "audit_keep_s"),
    *("node_silent_s", "node_lag_s", "node_behind_s", "node_inactive_s", "node_skew_s"),
)
"""What a hub takes up while it runs; everything else waits for its next start."""


class Told(msgspec.Struct, frozen=True):
    """One thing that was configured, for people: never a secret.

    Attributes:
        path: of the key.
        value: in words; of a secret only whether there is one.
        origin: who said it: a file with its line, a variable, an option; empty: nobody, so it is the default.
        live: whether it is taken up while the hub runs.
        waits: what the next start will make of it, if that is something else.
    """

    path: str
    value: str
    origin: str = ""
    live: bool = False
    waits: str = ""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a hub is to run.

    Attributes:
        token: one that every client may show and that may do everything; None asks for nothing, until tokens are made.
        sql_seconds: the longest time that a statement of /relay/query may ask for.
        database: the address of a PostgreSQL database that holds everything, in place of a directory; any number of
            processes may serve it.
        settle: what nodes may evict: what the hub has acknowledged, or only what its backups hold too.
        follow: the address of a hub to follow: everything that it holds, this one is to hold too.
        follow_token: what that hub knows this one by, or the file that holds it.
        follow_key: that hub's public key in hex; empty: the one that it shows at first contact, from then on.
        seed_metrics: whether ``/metrics`` shows the names of the earlier systems too.
        cache: where the TTL cache is: the address of a Redis or Valkey (``redis://…``), or empty: beside the records.
        blobs: the address of an object store that payloads above 64 KiB move to; empty: they stay beside the records.
        backup: the address of an object store where this hub's backups are to be; empty: it makes none.
        backup_every: seconds between them; 0: somebody else makes them, and this hub only settles what they hold.
        backup_key: the file of the keys that seal them; empty: they are not sealed.
        backup_drill_every: seconds between drills.
        backup_preset: which backups are kept; none: all.
        hosts: the names that requests may be addressed to, besides addresses; empty: any.
        tls_cert, tls_key: files of its own certificate chain and key, in PEM; the key may be in the first.
        tls_terminated: a proxy before it ends TLS.
        plain_http: other machines may come without TLS: whoever can listen on the way reads everything.
        rate: requests a second that each principal may make (a node ten times as many); 0: no limit.
        concurrent: requests under way at once, at most; feeds and probes do not count.
        scan_s: seconds between two turns of the scan in the background, which reads all of it in a day; 0 for none.
        floor_bytes: free bytes on its disk below which writes are refused.
        ballast_bytes: kept aside for the way out of a full disk; 0 for none.
        pause_s: seconds that a client may pause within a body, or take over what comes before it.
        embed: the function that makes vectors of texts, as ``package.module:function``; empty: whoever has one fills
            the indexes of vectors.
        embed_model: the name of its model; empty: as `embed` says.
        notify_hosts: where notifications may go: names, globs, addresses and networks; empty: to public addresses.
        audit_keep_s: seconds for which the audit trail keeps what was done; 0: for ever.
        node_silent_s: a node that was not heard of for so long is silent; idle ones say hello once a minute.
        node_lag_s: it is late when its oldest record that is not here is older, in seconds.
        node_behind_s: it is behind when that is older still, in seconds.
        node_inactive_s: a silent one that owes nothing is inactive after so many seconds.
        node_skew_s: its clock is off when it is so many seconds away from the hub's.
        told: what was configured and by whom, as the pages show it.
    """

    token: str | None = None
    follow: str = ""
    follow_token: str | Path | None = None
    follow_key: str = ""
    database: str | None = None
    settle: Settle = "backups"
    seed_metrics: bool = True
    cache: str = ""
    blobs: str = ""
    backup: str = ""
    backup_every: float = 3600.0
    backup_key: str = ""
    backup_drill_every: float = 86_400.0
    backup_preset: Literal["usual", "day", "none"] = "usual"
    hosts: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_terminated: bool = False
    plain_http: bool = False
    rate: float = 0.0
    concurrent: int = 1_000
    pause_s: float = 20.0
    scan_s: float = 300.0
    floor_bytes: int = FLOOR_BYTES
    ballast_bytes: int = BALLAST_BYTES
    sql_seconds: float = 5.0
    embed: str = ""
    embed_model: str = ""
    notify_hosts: tuple[str, ...] = ()
    audit_keep_s: float = 0.0
    node_silent_s: float = 150.0
    node_lag_s: float = 5.0
    node_behind_s: float = 300.0
    node_inactive_s: float = 7 * 86_400.0
    node_skew_s: float = 2.0
    told: tuple[Told, ...] = ()


def retold(now: tuple[Told, ...], then: tuple[Told, ...]) -> tuple[Told, ...]:
    """What holds once a running hub has read its configuration again.

    Args:
        now: what has held so far.
        then: what is configured now; what is not live waits for the next start, and says so.
    """
    wanted = {each.path: each for each in then}
    found = []
    for each in now:
        new = wanted.get(each.path, each)
        if new.live:
            found.append(new)
        else:
            found.append(msgspec.structs.replace(each, waits=new.value if new.value != each.value else ""))
    return tuple(found)


def options_of(options: Options | None, given: dict[str, Any]) -> Options:
    """The options, with the given fields in place of theirs.

    Raises:
        UsageError: there is no such field.
    """
    if unknown := sorted(set(given) - set(Options.__struct_fields__)):
        known = ", ".join(Options.__struct_fields__)
        raise UsageError(f"unknown option {unknown[0]!r}", hint=f"known are: {known}")
    return msgspec.structs.replace(options or Options(), **given)
