"""What `doctor` looks at. Each check says how it is, in words, and what to do where it is not well."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from holdfast.cli.health import ping
from holdfast.cli.settings import CONFIG, Settings
from holdfast.cli.show import count_text, seconds_text, size_text
from holdfast.corpus.space import FLOOR_BYTES
from holdfast.errors import HoldfastError
from holdfast.integrity.scanner import Progress
from holdfast.node.scanning import progress
from holdfast.sqlite import SQLITE_MIN, apsw_version

WAL_BYTES_MANY: Final = 64 << 20
SKEW_S_MAX: Final = 2.0
_NETWORK: Final = re.compile(
    r"^(nfs|nfs4|cifs|smb3?|smbfs|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|glusterfs|s3fs|rclone))$"
)
_SYNCED: Final = (".stfolder", ".dropbox", ".dropbox.cache", ".owncloudsync.log", ".nextcloudsync.log")
_SYNC_NAMES: Final = ("Dropbox", "OneDrive", "Google Drive", "iCloud Drive", "Mobile Documents")


class Check(msgspec.Struct, frozen=True):
    """One thing looked at: its name, how it is, in words, and what to do."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""


def checkup(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which their causes come."""
    yield _sqlite()
    path = settings.path
    if not (path / CONFIG).is_file():
        yield Check(
            "store", "fail", f"no store at {path}", "holdfast init" + (f" --store {path}" if settings.store else "")
        )
    else:
        yield Check("store", "ok", str(path))
        yield _permissions(path)
        yield file_system(path)
        yield from _logs(settings)
        yield from _room(settings)
    yield from _token(settings)
    yield from _hub(settings)


def _sqlite() -> Check:
    have, want = (".".join(map(str, v)) for v in (apsw_version, SQLITE_MIN))
    if apsw_version < SQLITE_MIN:
        return Check("sqlite", "fail", f"{have} can corrupt a WAL", f"install apsw >= {want}")
    return Check("sqlite", "ok", have)


def _permissions(path: Path) -> Check:
    found = path.stat()
    if not os.access(path, os.W_OK | os.X_OK):
        return Check(
            "permissions", "fail", f"this user may not write to {path}", "make its owner the user who runs the agents"
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(found.st_mode)
        return Check("permissions", "warn", f"others may look into {path} (mode {mode:o})", f"chmod 700 {path}")
    return Check("permissions", "ok", "private to this user")


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> Check:
    """Whether the store lies where locks and fsync mean something.

    Args:
        path: the store.
        mounts: the system's table of mounts.
    """
    real = path.resolve()
    for folder in (real, *real.parents):
        if folder.name in _SYNC_NAMES or any((folder / mark).exists() for mark in _SYNCED):
            what = f"{folder} is kept in step by a file synchroniser, which tears databases apart"
            return Check("file system", "warn", what, "move the store; holdfast's hub does the synchronising")
    kind = _kind(real, mounts)
    if _NETWORK.match(kind):
        fix = "move the store to a local disk, and give it a hub"
        return Check("file system", "fail", f"{path} is on {kind}: locks and fsync are not to be trusted there", fix)
    return Check("file system", "ok", kind or "unknown")


def _kind(path: Path, mounts: Path) -> str:
    best, kind = "", ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""  # not Linux
    for line in lines:
        _, place, found, *_ = [*line.split(" "), "", "", ""]
        place = place.replace("\\040", " ")
        if path.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, found
    return kind


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
        space = directory.reserve.state()
    free = f"{size_text(space.free)} of {size_text(space.total)} free"
    if not space.writable:
        yield Check("disk", "fail", f"{free}: writes are refused below {size_text(space.floor)}", "free some space")
    elif space.free < 8 * FLOOR_BYTES:
        yield Check("disk", "warn", free, "free some space")
    else:
        yield Check("disk", "ok", free)
    if space.ballast < space.ballast_wanted:
        yield Check("ballast", "warn", "gone: it was given back to a full disk", "comes back once there is room")
    else:
        yield Check("ballast", "ok", size_text(space.ballast))


def _token(settings: Settings) -> Iterator[Check]:
    path = settings.token_path
    if path is None:
        return
    try:
        found, empty = path.stat(), not path.read_text().strip()
    except OSError as error:
        yield Check("token", "fail", f"{path}: {error.strerror}", "write the hub's token into it")
        return
    if empty:
        yield Check("token", "fail", f"{path} is empty", "write the hub's token into it")
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Check("token", "warn", f"others may read {path}", f"chmod 600 {path}")
    else:
        yield Check("token", "ok", str(path))


def _hub(settings: Settings) -> Iterator[Check]:
    if not settings.hub_urls:
        yield Check("hub", "ok", "none is configured")
    for url in settings.hub_urls:
        yield from _one_hub(settings, url)


def _one_hub(settings: Settings, url: str) -> Iterator[Check]:
    try:
        _ = settings.token  # raises where one is wanted and cannot be read
        pong = ping(url, settings)
        allowed = ping(url, settings, "/v1/agents?limit=1") if pong.ok else pong
    except (OSError, HoldfastError) as error:
        yield Check("hub", "fail", str(error), "holdfast init --hub URL, --token-file PATH")
        return
    if not pong.ok:
        fix = "is holdfast serve running there? writes are kept here meanwhile"
        yield Check("hub", "fail", f"{url}: {pong.why}", fix)
    elif not allowed.ok:
        yield Check("hub", "fail", f"{url}: {allowed.why}", "--token-file: the hub's own token, one line")
    else:
        yield Check("hub", "ok", f"{url} answers in {seconds_text(pong.seconds)}")
        yield _skew(pong.date)


def _skew(date: str) -> Check:
    if not date:
        return Check("clock", "ok", "the hub does not tell its time")
    from email.utils import parsedate_to_datetime

    # The header has whole seconds, so half of one is its own doubt.
    skew = abs(parsedate_to_datetime(date).timestamp() + 0.5 - time.time())
    if skew > SKEW_S_MAX:
        return Check("clock", "warn", f"{seconds_text(skew)} away from the hub's", "let both keep time by NTP")
    return Check("clock", "ok", "agrees with the hub's")
