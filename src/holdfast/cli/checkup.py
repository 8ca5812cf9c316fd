"""What `doctor` looks at. Each check says how it is, in words, and what to do where it is not well."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holdfast.cli import machine
from holdfast.cli.health import ping
from holdfast.cli.machine import Check
from holdfast.cli.settings import CONFIG, Settings
from holdfast.cli.show import count_text, seconds_text, size_text
from holdfast.errors import HoldfastError, UsageError
from holdfast.integrity.scanner import Progress
from holdfast.node.scanning import progress
from holdfast.sqlite import apsw_version

if TYPE_CHECKING:
    from holdfast.node.directory import Directory

WAL_BYTES_MANY: Final = 64 << 20
SKEW_S_MAX: Final = 2.0
AT_RISK_S: Final = 86_400.0
"""What no hub has for a day is the only copy of a day's work."""
UNSETTLED_S: Final = 3 * 86_400.0
"""Backups are usually made every hour, and drilled every day: what two of them do not hold by then, none will."""


def checkup(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which their causes come."""
    yield machine.sqlite(apsw_version)
    yield from _configuration(settings)
    try:
        path = settings.path
    except UsageError:
        return  # which store is meant is not known then
    if not (path / CONFIG).is_file():
        fix = "holdfast init" + (f" --store {path}" if settings.store else "")
        yield Check("store", "fail", f"no store at {path}", fix)
    else:
        yield Check("store", "ok", str(path))
        yield machine.permissions(path)
        yield machine.keys(_key_files(settings, path))
        yield machine.file_system(path)
        yield from _logs(settings)
        yield from _room(settings)
    yield machine.open_files(_files_max())
    yield from _token(settings)
    yield from _hub(settings)


def _configuration(settings: Settings) -> Iterator[Check]:
    from holdfast.settings.layers import strangers

    try:
        found = settings.read_configuration()
    except UsageError as error:
        yield Check("configuration", "fail", error.message, error.hint)
        return
    odd = [str(each) for each in strangers(os.environ)]
    read = ", ".join(found.files[:3]) or "no file"
    if found.problems:
        first = found.problems[0]
        what = f"{count_text(len(found.problems), 'problem')}: {first}"
        yield Check("configuration", "fail", what, "holdfast config check")
    elif odd:
        yield Check("configuration", "warn", "; ".join(odd), "unset it, or correct its name")
    else:
        more = f"; {count_text(len(found.ignored), 'key')} without effect" if found.ignored else ""
        yield Check("configuration", "ok", read + more)


def _key_files(settings: Settings, path: Path) -> list[Path]:
    found = [path / name for name in machine.SECRET_FILES]
    for key in ("store.key_file", "store.passphrase_file", "backup.key_file"):
        given = settings.configuration.get(key)
        if given:
            found.append(Path(given).expanduser())
    return found


def _files_max() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _logs(settings: Settings) -> Iterator[Check]:
    with settings.directory() as directory:
        agents = directory.agents()
        incidents, wal, scanned = [], 0, [progress(directory, agent) for agent in agents]
        for agent in agents:
            try:
                with settings.open_log(agent) as opened:
                    incidents += [f"{agent}: {each.what}: {each.detail}" for each in opened.incidents]
                    beside = Path(f"{opened.corpus.engine.path}-wal")
                    wal = max(wal, beside.stat().st_size if beside.exists() else 0)
            except HoldfastError as error:
                incidents.append(f"{agent}: {error.message}")
    if incidents:
        yield Check("logs", "fail", "; ".join(incidents), "holdfast verify says what is whole")
    else:
        yield Check("logs", "ok", f"{count_text(len(agents), 'agent')}")
    yield _scan(scanned)
    if wal > WAL_BYTES_MANY:
        yield Check("wal", "warn", f"{size_text(wal)}: a reader stays open, or checkpoints fail", "end long readers")
    else:
        yield Check("wal", "ok", size_text(wal))


def _scan(scanned: list[Progress]) -> Check:
    findings = [finding for each in scanned for finding in each.findings]
    if findings:
        return Check(
            "scan", "fail", f"{count_text(len(findings), 'finding')}: {findings[0]}", "holdfast verify says all"
        )
    turns = [each.at_ms for each in scanned]
    if not turns or not min(turns):
        return Check("scan", "ok", "not yet: a process that runs for five minutes begins it, or holdfast scan")
    rounds = min(each.round_ms for each in scanned)
    whole = f"everything {_ago(rounds)}" if rounds else "not yet everything"
    return Check("scan", "ok", f"what is new {_ago(min(turns))}, {whole}; nothing found")


def _ago(at_ms: int) -> str:
    return f"{seconds_text(max(0.0, time.time() - at_ms / 1000))} ago"


def _room(settings: Settings) -> Iterator[Check]:
    with settings.directory() as directory:
        yield from machine.disk(directory.reserve.state())
        found = os.statvfs(directory.path)
        yield machine.inodes(found.f_favail, found.f_files)
        for url in settings.hub_urls:
            yield from _owed(directory, url)


def _owed(directory: Directory, url: str) -> Iterator[Check]:
    """What a hub does not have, and what its backups do not hold, by the age of the oldest."""
    from holdfast.node.outbox_store import oldest_ms

    positions = directory.positions.of(url)
    unsent = unsettled = 0
    for agent in directory.agents():
        try:
            opened = directory.open_log(agent, None)
        except HoldfastError:
            continue  # told of by the check of the logs
        try:
            known = positions.get(opened.log.branch.stream)
            acked, settled = (known.acked.seq, known.settled.seq) if known else (0, 0)
            for seq in (acked, settled):
                at = oldest_ms(opened.corpus, seq)
                if seq == acked:
                    unsent = min(at or unsent, unsent or at)
                unsettled = min(at or unsettled, unsettled or at)
        finally:
            directory.release_log(opened)
    yield aged("outbox", url, unsent, AT_RISK_S, "is the hub running, and does it know this node's token?")
    yield aged("settled", url, unsettled, UNSETTLED_S, "holdfast serve --backup ADDRESS there, or --settle acked")


def aged(name: str, url: str, oldest_ms: int, most_s: float, fix: str) -> Check:
    """Whether the oldest record that waits for something waits too long.

    Args:
        name: of the check.
        url: the hub.
        oldest_ms: when it was written; 0: none waits.
        most_s: how long it may.
        fix: what to do where it waits longer.
    """
    what = "acknowledged" if name == "outbox" else "held by its verified backups"
    if not oldest_ms:
        return Check(name, "ok", f"{url}: everything is {what}")
    age = max(0.0, time.time() - oldest_ms / 1000)
    text = f"{url}: the oldest record that is not {what} is {seconds_text(age)} old"
    return Check(name, "warn" if age > most_s else "ok", text, fix if age > most_s else "")


def _token(settings: Settings) -> Iterator[Check]:
    try:
        source = settings.token_path
    except UsageError:
        return
    if source is None:
        return
    if not isinstance(source, Path):
        try:
            _ = settings.token
        except UsageError as error:
            yield Check("token", "fail", error.message, error.hint)
            return
        where = "the environment" if isinstance(source, str) else "a command"
        yield Check("token", "ok", f"from {where}")
        return
    try:
        found, empty = source.stat(), not source.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        yield Check("token", "fail", f"{source}: {why}", "write the hub's token into it")
        return
    if empty:
        yield Check("token", "fail", f"{source} is empty", "write the hub's token into it")
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("token", "warn", f"others may read {source}", f"chmod 600 {source}")
    else:
        yield Check("token", "ok", str(source))


def _hub(settings: Settings) -> Iterator[Check]:
    try:
        urls = settings.hub_urls
    except UsageError:
        return
    if not urls:
        yield Check("hub", "ok", "none is configured")
    for url in urls:
        yield from _one_hub(settings, url)


def _one_hub(settings: Settings, url: str) -> Iterator[Check]:
    try:
        _ = settings.token  # raises where one is wanted and cannot be read
        pong = ping(url, settings)
        told = ping(url, settings, "/v1/me") if pong.ok else pong
    except (OSError, HoldfastError) as error:
        yield Check("hub", "fail", str(error), "holdfast init --hub URL, --token-file PATH")
        return
    if not pong.ok:
        fix = "is holdfast serve running there? writes are kept here meanwhile"
        yield Check("hub", "fail", f"{url}: {pong.why}", fix)
        return
    about = ping(url, settings, "/version")
    version = str(about.told.get("version", "unknown"))
    if not told.ok and told.status != 404:
        yield Check("hub", "fail", f"{url}: {told.why}", "--token-file: the hub's own token, one line")
        return
    yield protocol(url, about.told, f"{url} answers in {seconds_text(pong.seconds)}, version {version}")
    if told.ok:
        yield rights(told.told)
    yield skew(pong.date, time.time())


def protocol(url: str, about: dict[str, Any], well: str) -> Check:
    """Whether a hub speaks this node's protocol.

    Args:
        url: the hub.
        about: what it said of itself.
        well: what to say if it does.
    """
    from holdfast.wire import PROTOCOL

    theirs = about.get("protocol", PROTOCOL)
    if theirs != PROTOCOL:
        what = f"{url} speaks protocol {theirs}, and this node {PROTOCOL}"
        return Check("hub", "fail", what, "update the older of the two")
    return Check("hub", "ok", well)


def rights(me: dict[str, Any]) -> Check:
    """Whether a token may do what a node needs: read, and ship.

    Args:
        me: what the hub says of whoever shows it.
    """
    scopes = set(me.get("scopes") or ())
    who = f"{me.get('kind')} {me.get('name')}".strip()
    wanted = {"records:read", "records:append"}
    if "admin" in scopes or wanted <= scopes:
        ends = f", until {me['ends']}" if me.get("ends") else ""
        return Check("rights", "ok", f"{who} may read and ship{ends}")
    lacks = " and ".join(sorted(wanted - scopes))
    fix = "holdfast token create --kind node --name NAME --agent GLOB, at the hub"
    return Check("rights", "warn", f"{who} lacks {lacks}: what is written here does not reach the hub", fix)


def skew(date: str, now: float) -> Check:
    """Whether this machine's clock agrees with the hub's.

    Args:
        date: the header of the hub's answer; empty: it does not tell.
        now: this machine's time, in seconds since 1970.
    """
    if not date:
        return Check("clock", "ok", "the hub does not tell its time")
    from email.utils import parsedate_to_datetime

    # The header has whole seconds, so half of one is its own doubt.
    away = abs(parsedate_to_datetime(date).timestamp() + 0.5 - now)
    if away > SKEW_S_MAX:
        return Check("clock", "warn", f"{seconds_text(away)} away from the hub's", "let both keep time by NTP")
    return Check("clock", "ok", "agrees with the hub's")
