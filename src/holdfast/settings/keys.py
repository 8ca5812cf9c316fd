"""Everything that can be configured: its name, what it takes, what it means. Files, variables, schema and pages follow.

A key is ``section.name``; its variable is ``HOLDFAST_SECTION_NAME``. To add one, add a row here, use it where it takes
effect, and write its row in docs/configuration.md (a test holds the page to this table).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

Kind = Literal[
    "text",
    "choice",
    "flag",
    "whole",
    "number",
    "size",
    "span",
    "days",
    "days_by_name",
    "path",
    "address",
    "url",
    "urls",
    "words",
    "command",
    "secret",
]
LEVELS: Final = ("basic", "advanced", "critical")
PREFIX: Final = "HOLDFAST_"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be configured.

    Attributes:
        path: ``section.name``.
        kind: what it takes; see `values.value_in`.
        says: one line about it.
        default: what holds where nobody says anything; None: nothing does, or it depends (`says` tells).
        choices: of a choice.
        least, most: the bounds of a number, size or length of time.
        variables: names of environment variables besides its own.
        flag: the option of the command line that says the same.
        group: keys of one group are alternatives: whoever is heard first with one of them is heard alone.
        live: whether ``holdfast serve`` takes it up at SIGHUP.
        ignored: why it has no effect here; such keys are accepted for the files of earlier systems.
    """

    path: str
    kind: Kind
    says: str
    default: Any = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    variables: tuple[str, ...] = ()
    flag: str = ""
    group: str = ""
    live: bool = False
    ignored: str = ""

    @property
    def section(self) -> str:
        """The part before the dot."""
        return self.path.partition(".")[0]

    @property
    def name(self) -> str:
        """The part behind it."""
        return self.path.partition(".")[2]

    @property
    def variable(self) -> str:
        """Its own environment variable."""
        return f"{PREFIX}{self.path.replace('.', '_').upper()}"


DAY_S: Final = 86_400.0
_YEAR_S: Final = 366 * DAY_S
_PORT_MAX: Final = 65_535
_TiB: Final = 1 << 40
_FOR_EVER: Final = "every record is shipped at once, in requests as full as it takes, and tried again for ever"

_ROWS: Final = (
    # -- a node ----------------------------------------------------------------------------------------------------
    Key(path="store.path", kind="path", flag="--store", variables=("HOLDFAST_STORE", "COMMANDER_STORAGE_DIR"),
        says="the store's directory; $XDG_DATA_HOME/holdfast unless said"),
    Key(path="store.level", kind="choice", choices=LEVELS, default="advanced",
        says="what a returned write survives"),
    Key(path="store.cas", kind="words", default=(), says="collections whose writes the hub decides"),
    Key(path="store.sealed", kind="words", default=(), says="collections that only this node can read, from now on"),
    Key(path="store.redact", kind="flag", default=False, says="take secrets out of what is written"),
    Key(path="store.key_file", kind="path", variables=("HOLDFAST_KEY_FILE",),
        says="the file that holds the key of sealed collections; sealing.keys in the store unless said"),
    Key(path="store.passphrase", kind="secret", variables=("HOLDFAST_PASSPHRASE",), group="passphrase",
        says="the passphrase of that key, in place of a file; only in the environment"),
    Key(path="store.passphrase_file", kind="path", group="passphrase", says="a file that holds that passphrase"),
    Key(path="store.passphrase_command", kind="command", group="passphrase", says="a command that prints it"),
    Key(path="store.keyring", kind="flag", default=False, variables=("HOLDFAST_KEYRING",),
        says="keep that key in the operating system's keyring, where no passphrase is said"),
    Key(path="agent.id", kind="text", flag="--agent", variables=("HOLDFAST_AGENT",),
        says="who writes; what init wrote down unless said"),
    Key(path="agent.role", kind="text", says="what it does; sizes its cache"),
    Key(path="agent.context_tokens", kind="whole", least=0, most=1_000_000_000,
        says="the context window of its model, in tokens; sizes its cache, and the role's usual one unless said"),
    Key(path="agent.enabled", kind="flag", default=True, says="false: no store is opened in its name"),
    Key(path="agent.node_id", kind="text", says="the machine's name in the earlier system",
        ignored="a node makes its own name, once, with its key"),
    Key(path="hub.urls", kind="urls", default=(), flag="--hub", variables=("HOLDFAST_HUB",),
        says="the hubs, in the order in which they are asked"),
    Key(path="hub.enabled", kind="flag", default=True, says="false: nothing is shipped, whatever hub is named"),
    Key(path="hub.token", kind="secret", variables=("HOLDFAST_TOKEN",), group="token",
        says="what the hub knows this node by; only in the environment"),
    Key(path="hub.token_file", kind="path", flag="--token-file", variables=("HOLDFAST_TOKEN_FILE",), group="token",
        says="a file that holds it; read anew when the hub refuses what was in it"),
    Key(path="hub.token_command", kind="command", group="token",
        says="a command that prints it, run without a shell; again when the hub refuses what it printed"),
    Key(path="cache.max_bytes", kind="size", least=0, most=1024 * _TiB,
        says="how much this agent may keep on this machine; by its role and context unless said"),
    Key(path="cache.retention_days", kind="days", least=0, most=36_600, default=0.0,
        says="bodies that are older leave this machine once they are settled; 0: they stay"),
    Key(path="cache.collection_days", kind="days_by_name", least=0, most=36_600, default=(),
        says="the same for collections, by name or glob"),
    Key(path="cache.keep", kind="words", default=(), says="collections whose current values leave last"),
    Key(path="cache.wait", kind="span", least=0, most=3_600, default=2.0,
        says="how long a write waits at the budget while a hub makes room"),
    Key(path="cache.keep_fetched", kind="flag", default=True, 
        says="keep again what was fetched back, while there is room"),
    Key(path="cache.compression", kind="flag", says="compress what is stored",
        ignored="bodies of 128 bytes and more are always compressed, since that costs less than to write them"),
    Key(path="sync.batch_size", kind="whole", least=1, most=10_000, says="records a request", ignored=_FOR_EVER),
    Key(path="sync.interval_seconds", kind="span", least=0, most=_YEAR_S, says="time between requests",
        ignored=_FOR_EVER),
    Key(path="sync.retry_max", kind="whole", least=0, most=1_000_000, says="tries before a record is given up",
        ignored="no record is ever given up"),
    Key(path="sync.retry_backoff_base", kind="number", least=0, most=1_000, says="how pauses between tries grow",
        ignored="pauses grow from 0.2 s to 30 s at random, so that a hub that comes back is not overrun"),
    Key(path="sync.timeout_seconds", kind="span", least=0, most=_YEAR_S, says="time that a request may take",
        ignored="nobody waits for a request: who writes has returned already"),
    Key(path="limits.floor", kind="size", least=0, most=1024 * _TiB, default=64 << 20, live=True,
        says="free bytes on the disk below which nothing new is written; of a hub too"),
    Key(path="limits.ballast", kind="size", least=0, most=_TiB, default=20 << 20,
        says="bytes kept aside for the way out of a full disk; 0 for none; of a hub too"),
    Key(path="scan.every", kind="span", least=0, most=7 * DAY_S, default=300.0,
        says="time between two turns of the scan in the background; 0 for none; of a hub too"),
    Key(path="search.memory", kind="size", least=0, most=_TiB, default=512 << 20,
        says="bytes of vectors that searches keep in memory; of a hub too"),
    # -- a hub -----------------------------------------------------------------------------------------------------
    Key(path="serve.data", kind="path", flag="--data", group="data", says="the hub's directory; hub unless said"),
    Key(path="serve.database", kind="address", flag="--database", group="data", variables=("HOLDFAST_DATABASE",),
        says="a PostgreSQL database in place of a directory"),
    Key(path="serve.host", kind="text", flag="--host", default="127.0.0.1", says="where it listens"),
    Key(path="serve.port", kind="whole", flag="--port", least=0, most=_PORT_MAX, default=8084,
        says="the port; 0 takes a free one"),
    Key(path="serve.ready_file", kind="path", flag="--ready-file", says="written with the address once it listens"),
    Key(path="serve.token_file", kind="path", flag="--token-file", variables=("HOLDFAST_TOKEN_FILE",),
        group="operator's token", says="an administrator's token, in a file"),
    Key(path="serve.token_command", kind="command", group="operator's token", says="a command that prints it"),
    Key(path="serve.settle", kind="choice", flag="--settle", choices=("acked", "backups"), default="backups",
        says="when nodes may drop what they shipped"),
    Key(path="serve.follow", kind="url", flag="--follow", default="", says="the hub that this one follows"),
    Key(path="serve.follow_token_file", kind="path", flag="--follow-token-file", says="what that hub knows it by"),
    Key(path="serve.follow_key", kind="text", flag="--follow-key", default="", says="that hub's key, in hex"),
    Key(path="serve.cache", kind="address", flag="--cache", default="", says="a Redis for the TTL cache"),
    Key(path="serve.blobs", kind="address", flag="--blobs", default="",
        says="an object store for payloads above 64 KiB"),
    Key(path="serve.metric_names", kind="choice", flag="--metric-names", choices=("all", "own"), default="all",
        says="own: /metrics without the names of the earlier systems"),
    Key(path="serve.log_format", kind="choice", flag="--log-format", choices=("json", "text"),
        says="the form of its log; text on a terminal and JSON elsewhere unless said"),
    Key(path="serve.log_level", kind="choice", flag="--log-level", choices=("debug", "info", "warning", "error"),
        live=True, says="what it logs; warning, and with -v info, unless said"),
    Key(path="serve.tls_cert", kind="path", flag="--tls-cert", says="its certificate chain, in PEM"),
    Key(path="serve.tls_key", kind="path", flag="--tls-key", says="the certificate's private key"),
    Key(path="serve.tls_terminated", kind="flag", flag="--tls-terminated", default=False,
        says="a proxy before it ends TLS"),
    Key(path="serve.plain_http", kind="flag", flag="--plain-http", default=False,
        says="no TLS, in a network where every machine is trusted"),
    Key(path="serve.host_names", kind="words", flag="--host-name", default=(), says="names that it is asked by"),
    Key(path="serve.rate", kind="number", flag="--rate", least=0, most=1_000_000, default=0.0, live=True,
        says="requests a second that each token may make; 0: any"),
    Key(path="serve.concurrent", kind="whole", least=1, most=100_000, default=1_000, live=True,
        says="requests under way at once"),
    Key(path="serve.pause", kind="span", least=0.1, most=3_600, default=20.0, live=True,
        says="time that a client may pause within a request"),
    Key(path="serve.sql_timeout", kind="span", least=0.01, most=3_600, default=5.0,
        says="the longest time that a statement of /relay/query may ask for"),
    Key(path="serve.embed", kind="text", flag="--embed", default="",
        says="the function that makes vectors of texts for searches, as package.module:function"),
    Key(path="serve.embed_model", kind="text", flag="--embed-model", default="",
        says="the name of its model; as serve.embed names the function unless said"),
    Key(path="serve.notify_hosts", kind="words", default=(), live=True,
        says="hosts, globs and networks that notifications may go to; any public address unless said"),
    Key(path="backup.address", kind="address", flag="--backup", default="", variables=("HOLDFAST_BACKUP",),
        says="an object store for backups; a hub that is told makes its own"),
    Key(path="backup.source", kind="address", flag="--from", default="", variables=("HOLDFAST_BACKUP_FROM",),
        says="what `holdfast backup` backs up; the store unless said"),
    Key(path="backup.every", kind="span", flag="--backup-every", least=0, most=_YEAR_S, default=3_600.0, live=True,
        says="time between a hub's backups; 0: others make them"),
    Key(path="backup.key_file", kind="path", flag="--backup-key", says="the keys that seal backups"),
    Key(path="backup.drill_every", kind="span", flag="--drill-every", least=60, most=_YEAR_S, default=DAY_S, live=True,
        says="time between drills"),
    Key(path="backup.preset", kind="choice", flag="--preset", choices=("usual", "day", "none"), default="usual",
        live=True, says="which backups are kept"),
    Key(path="audit.keep_days", kind="days", least=0, most=36_600, default=0.0, live=True,
        says="how long a hub's audit trail keeps what was done; 0: for ever"),
    Key(path="watch.silent", kind="span", least=90, most=_YEAR_S, default=150.0, live=True,
        says="without a word for so long a node is silent; an idle one speaks once a minute"),
    Key(path="watch.lag", kind="span", least=0.1, most=_YEAR_S, default=5.0, live=True,
        says="it is catching up when its oldest record that is not at the hub is older"),
    Key(path="watch.behind", kind="span", least=0.1, most=_YEAR_S, default=300.0, live=True,
        says="it is behind when that record is older than this"),
    Key(path="watch.inactive", kind="span", least=90, most=_YEAR_S, default=7 * DAY_S, live=True,
        says="a silent node that owes nothing is inactive after so long"),
    Key(path="watch.clock", kind="span", least=0.1, most=_YEAR_S, default=2.0, live=True,
        says="its clock is off when it is so far from the hub's"),
)  # fmt: skip

KEYS: Final[dict[str, Key]] = {key.path: key for key in _ROWS}
SECTIONS: Final[dict[str, dict[str, Key]]] = {}
for _key in _ROWS:
    SECTIONS.setdefault(_key.section, {})[_key.name] = _key

OTHERS: Final = frozenset(
    {
        *("HOLDFAST_CONFIG", "HOLDFAST_NEW_PASSPHRASE", "HOLDFAST_AUDIT_FILE", "HOLDFAST_STORAGE", "HOLDFAST_DATA"),
        *("HOLDFAST_SNAPSHOT", "HOLDFAST_COUNTS", "HOLDFAST_ARCHIVE", "HOLDFAST_ARCHIVE_FROM"),
    }
)
"""Variables that say something else than a key; so do those that begin with `STORAGE_PREFIX` (docs/objects.md)."""
STORAGE_PREFIX: Final = "HOLDFAST_STORAGE_"
