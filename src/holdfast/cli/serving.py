"""`holdfast serve`: its options, what the configuration adds to them, and what it takes up at SIGHUP."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from holdfast.cli import lasting, shell
from holdfast.cli.settings import Settings
from holdfast.cli.setup import check_url
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.hub.options import Options, Told
    from holdfast.settings.layers import Configuration

logger = logging.getLogger(__name__)

_KEYS: Final[Mapping[str, str]] = {
    # the parameter -> the key that says the same
    **{name: f"serve.{name}" for name in ("data", "database", "host", "port", "ready_file", "settle", "follow")},
    **{name: f"serve.{name}" for name in ("follow_key", "cache", "blobs", "metric_names", "log_format", "log_level")},
    **{name: f"serve.{name}" for name in ("tls_cert", "tls_key", "tls_terminated", "plain_http", "rate")},
    **{name: f"serve.{name}" for name in ("embed", "embed_model")},
    "follow_token": "serve.follow_token_file",
    "hosts": "serve.host_names",
    "backup": "backup.address",
    "backup_every": "backup.every",
    "backup_key": "backup.key_file",
}
_PLAIN: Final[Mapping[str, str]] = {
    # the field of `Options` -> the key
    **{name: f"serve.{name}" for name in ("database", "settle", "follow", "follow_key", "cache", "blobs", "rate")},
    **{name: f"serve.{name}" for name in ("tls_terminated", "plain_http", "concurrent", "embed", "embed_model")},
    **{"notify_hosts": "serve.notify_hosts", "audit_keep_s": "audit.keep_days"},
    **{"node_silent_s": "watch.silent", "node_lag_s": "watch.lag", "node_behind_s": "watch.behind"},
    **{"node_inactive_s": "watch.inactive", "node_skew_s": "watch.clock"},
    **{"hosts": "serve.host_names", "pause_s": "serve.pause", "sql_seconds": "serve.sql_timeout"},
    **{"backup": "backup.address", "backup_every": "backup.every", "backup_drill_every": "backup.drill_every"},
    **{"backup_preset": "backup.preset", "scan_s": "scan.every"},
    **{"floor_bytes": "limits.floor", "ballast_bytes": "limits.ballast"},
}
_SHOWN: Final = ("serve", "backup", "limits", "audit", "watch")
"""The sections that are about a hub."""
_AT_START: Final = (
    *("serve.data", "serve.host", "serve.port", "serve.ready_file", "serve.log_format"),
    *("serve.token_file", "serve.token_command"),
)
"""What is read when a hub starts, besides its `Options`."""
_FILES: Final[Mapping[str, str]] = {
    "follow_token": "serve.follow_token_file",
    "tls_cert": "serve.tls_cert",
    "tls_key": "serve.tls_key",
    "backup_key": "backup.key_file",
}


@shell.command("serve")
@click.option("--data", type=click.Path(path_type=Path), help="its directory (hub, unless there is a database)")
@click.option("--database", metavar="URL",
              help="a PostgreSQL database in place of a directory (or HOLDFAST_DATABASE)")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="beyond loopback it needs tokens and TLS")
@click.option("--port", default=8084, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one")
@click.option("--ready-file", type=click.Path(path_type=Path), help="written with the address once it listens")
@click.option("--settle", type=click.Choice(["acked", "backups"]), default="backups", show_default=True,
              help="when nodes may drop what they shipped")  # fmt: skip
@click.option("--follow", metavar="URL", default="", help="the hub whose records this one is to hold as well")
@click.option("--follow-token-file", "follow_token", type=click.Path(path_type=Path),
              help="what that hub knows this one by")  # fmt: skip
@click.option("--follow-key", metavar="HEX", default="", help="that hub's key; unsaid: the first that it shows")
@click.option("--cache", default="", metavar="URL", help="a Redis for the TTL cache, in place of the hub's file")
@click.option("--blobs", default="", metavar="ADDRESS",
              help="an object store for payloads above 64 KiB: s3://bucket, azure://container, file:DIR")  # fmt: skip
@click.option("--backup", default="", metavar="ADDRESS",
              help="an object store for its backups, which it makes and drills by itself")  # fmt: skip
@click.option("--backup-every", default="1h", show_default=True, metavar="TIME",
              help="how often; 0: others make them, and it only lets nodes evict what they hold")  # fmt: skip
@click.option("--backup-key", default="", metavar="FILE", help="the keys that seal its backups")
@click.option("--metric-names", type=click.Choice(["all", "own"]), default="all", show_default=True,
              help="own: /metrics without the names of the earlier systems")  # fmt: skip
@click.option("--log-format", type=click.Choice(["json", "text"]), help="else text on a terminal, and JSON elsewhere")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              help="else warning, with -v info; debug has a line for each request")  # fmt: skip
@click.option("--print-unit", is_flag=True, help="print the unit for systemd that would run it so, and end")
@click.option("--tls-cert", type=click.Path(), help="its certificate chain, in PEM; SIGHUP reads it again")
@click.option("--tls-key", type=click.Path(), help="the certificate's private key, if not in the same file")
@click.option("--tls-terminated", is_flag=True, help="a proxy before it ends TLS")
@click.option("--plain-http", is_flag=True, help="no TLS, in a network where every machine is trusted")
@click.option("--host-name", "hosts", multiple=True, metavar="NAME", help="a name it is asked by; repeat for several")
@click.option("--embed", metavar="MODULE:FUNCTION", default="",
              help="what makes vectors of texts: this hub fills its indexes, and searches by meaning")  # fmt: skip
@click.option("--embed-model", metavar="NAME", default="", help="the name of its model; as --embed says it unless said")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="requests a second that each token may make")
@click.pass_context
def serve_command(context: click.Context, /, print_unit: bool, **_: Any) -> None:
    """Run a hub: the place where every machine's records meet.

    It ends within three seconds of SIGTERM or Ctrl-C. Killed outright, it loses nothing that it acknowledged. Any
    number of processes may serve one database; keep its password in HOLDFAST_DATABASE or ~/.pgpass.

    \b
      holdfast serve --data /srv/holdfast
      holdfast token create --data /srv/holdfast --kind person --name me --scope admin > me.token
      holdfast serve --data /srv/holdfast --host 0.0.0.0 --tls-cert hub.pem --tls-key hub.key
      holdfast serve --data /srv/standby --follow http://10.0.0.42:8084 --follow-token-file /etc/holdfast/token
      holdfast serve --print-unit > /etc/systemd/system/holdfast-hub.service
      holdfast serve --database postgresql://holdfast@db.local/holdfast
    """
    settings: Settings = context.obj
    if print_unit:
        from holdfast.hub.systemd import program_here, unit

        settings.show.raw(unit(_for_unit(context), program=program_here()).encode())
        return
    settings.more = _flags(context)
    found = settings.configuration
    for each in found.ignored:
        if each.path in ("serve.data", "serve.database"):  # or somebody looks for the records where they are not
            settings.show.warn(str(each))
    if found.get("serve.follow"):
        check_url(found.get("serve.follow"))
    elif found.has("serve.follow_token_file") or found.has("serve.follow_key"):
        raise UsageError("no hub to follow was named", hint="--follow URL")
    from holdfast.hub.logs import configure
    from holdfast.hub.serve import serve

    lasting()
    configure(found.get("serve.log_format"), _log_level(settings, found))
    # Not the one that init wrote down: that is how a store on this machine asks its hub, and no operator's.
    token = settings.secret("serve", "token")
    at_start = {path: found.get(path) for path in _AT_START}

    def options() -> Options:
        """The options as they are configured now; the log's level is taken up on the way."""
        again = settings.read_configuration(anew=True)
        again.check()
        logging.getLogger("holdfast").setLevel(_log_level(settings, again).upper())
        if waiting := [path for path, value in at_start.items() if again.get(path) != value]:
            logger.warning("waits for the next start: %s", ", ".join(waiting))
        return options_in(again, token)

    data = None if found.has("serve.database") else Path(found.get("serve.data") or "hub").expanduser()
    ready = Path(found.get("serve.ready_file")).expanduser() if found.has("serve.ready_file") else None
    serve(data, found.get("serve.host"), found.get("serve.port"), options=options, ready_file=ready)


def options_in(found: Configuration, token: str | None) -> Options:
    """How a hub is to run, as it is configured.

    Args:
        found: what holds.
        token: the operator's.
    """
    from holdfast.hub.options import Options

    how = {field: found.get(path) for field, path in _PLAIN.items()}
    if how["notify_hosts"]:
        from holdfast.hub.notify.post import check_allowed  # brings what sends, and most hubs tell nobody anything

        check_allowed(how["notify_hosts"])
    how["told"] = told_in(found)
    for field, path in _FILES.items():
        given = found.get(path)
        if given:
            how[field] = str(Path(given).expanduser())
    if "follow_token" in how:
        how["follow_token"] = Path(how["follow_token"])
    from holdfast.node.configured import keep_vectors

    keep_vectors(found)
    return Options(token=token, seed_metrics=found.get("serve.metric_names") == "all", **how)


def told_in(found: Configuration) -> tuple[Told, ...]:
    """What is configured for a hub and by whom, for its pages: secrets are told to be set, and never shown."""
    from holdfast.hub.options import Told
    from holdfast.settings.keys import KEYS

    told = []
    for path, key in KEYS.items():
        if key.section in _SHOWN or path == "scan.every":
            place = found.place(path)
            told.append(Told(path, found.text(path), "" if place is None else str(place), key.live))
    return tuple(told)


def _flags(context: click.Context) -> dict[str, Any]:
    """What this command line itself says, by key; variables are the configuration's business."""
    from click.core import ParameterSource

    said = {}
    for name, path in _KEYS.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            said[path] = str(value) if isinstance(value, Path) else value
    if "backup.every" in said:
        from holdfast.settings.keys import KEYS
        from holdfast.settings.values import Wrong, value_in

        try:
            said["backup.every"] = value_in(KEYS["backup.every"], said["backup.every"])
        except Wrong as error:
            raise UsageError(f"--backup-every: {error}", hint="such as 30m, 36h or 2d") from None
    return said


def _log_level(settings: Settings, found: Configuration) -> str:
    return found.get("serve.log_level") or ("info" if settings.verbose else "warning")


def _for_unit(context: click.Context) -> list[str]:
    """The options of this command line that a unit for systemd is to repeat.

    It listens to all unless one says where, and then without TLS unless one says how.
    """
    from click.core import ParameterSource

    words: list[str] = []
    if context.obj.config_file:
        words += ["--config", str(Path(context.obj.config_file).absolute())]
    for param in context.command.params:
        name = param.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name in context.params and name not in ("data", "print_unit", "ready_file", "log_format"):
            value = context.params[name]
            for each in value if isinstance(value, tuple) else (value,):
                words += [param.opts[0]] if each is True else [param.opts[0], str(each)]
    if context.get_parameter_source("host") is ParameterSource.COMMANDLINE:
        return words
    safe = {"--tls-cert", "--tls-terminated", "--plain-http"}.intersection(words)
    return ["--host", "0.0.0.0", *([] if safe else ["--plain-http"]), *words]
