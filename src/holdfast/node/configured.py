"""Finds and reads configuration, runs the commands that print secrets, and opens the stores that it describes.

    configuration = load()                      # what holds here; `settings.layers` says in which order who is heard
    store = opened(Store, "config/agents/recruiter-001.yaml")

What is only found (holdfast.yaml, in this directory or one above) may have come with somebody's files: it must belong
to this user or to root, and no command is taken from it.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from holdfast.errors import UsageError
from holdfast.settings.keys import DAY_S, KEYS
from holdfast.settings.layers import Configuration, Layer, Level, environment, told, written
from holdfast.settings.said import Ignored, Place, Problem, Source
from holdfast.settings.seeds import AGENTS, BESIDE
from holdfast.settings.units import size_said

if TYPE_CHECKING:
    from holdfast.node.directory import Directory, Limits
    from holdfast.node.vault import Unsealing
    from holdfast.retention import Retention

NAMED: Final = "HOLDFAST_CONFIG"
PROJECT: Final = "holdfast.yaml"
SYSTEM: Final = "/etc/holdfast/config.yaml"
STORED: Final = "config.json"
MEND: Final = """put it right; the least that it needs is {"format": 1}"""
COMMAND_S: Final = 20.0
SECRET_BYTES_MAX: Final = 16 << 10
_SUFFIX: Final = ".yaml"
_RETENTION: Final = tuple(path for path, key in KEYS.items() if key.section == "cache" and not key.ignored)

T = TypeVar("T")
Secret = str | Path | Callable[[bool], str] | None
"""A secret, the file that holds it, or what gives it: with True, not the one that it gave before."""


# -- finding and reading ----------------------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    agent: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> Configuration:
    """What is configured; whoever wants it to be right calls its `check`.

    Args:
        path: a file, or a folder with the earlier system's files, in place of the project's; None: what
            ``HOLDFAST_CONFIG`` names, else the nearest holdfast.yaml. ``/dev/null``: no file is read at all.
        agent: whose file of such a folder; None: whom flags or environment name, or the only one there.
        flags: values by key that are heard before everything else.
        environ: in place of the process's own environment.
        directory: the working directory, from which files are looked for.
    """
    environ = os.environ if environ is None else environ
    layers = [Layer("flags", told(flags or {})), *environment(environ)]
    for layer in layers if agent is None else ():
        if "agent.id" in layer.source.said:
            agent = layer.source.said["agent.id"].value
            break
    layers += [Layer(level, source) for level, source in _sources(path, agent, environ, directory)]
    found = Configuration(layers)
    home = store_path(found, environ)
    if wrote := stored(home):
        found = Configuration([*layers, Layer("store", written(wrote, str(home / STORED)))])
    _look_at_budget(found)
    return found


def _look_at_budget(found: Configuration) -> None:
    """Notes a budget that no log could keep to, and a role that has none."""
    from holdfast.retention import LEAST_BYTES, ROLES

    budget, place = found.get("cache.max_bytes"), found.place("cache.max_bytes")
    if place is not None and 0 < budget < LEAST_BYTES:
        what = f"must be 0 (no budget), or at least {size_said(LEAST_BYTES)}"
        found.problems.append(Problem(place, "cache.max_bytes", what))
    role, where = found.get("agent.role"), found.place("agent.role")
    if where is not None and place is None and role.strip().lower() not in ROLES:
        why = f"a budget is known for {', '.join(ROLES)}; cache.max_bytes sets another"
        found.ignored.append(Ignored(where, "agent.role", why))


def store_path(configuration: Configuration, environ: Mapping[str, str] | None = None) -> Path:
    """The store's directory; whether it is there is another question."""
    given = configuration.get("store.path")
    environ = os.environ if environ is None else environ
    return Path(given or Path(environ.get("XDG_DATA_HOME") or "~/.local/share", "holdfast")).expanduser()


def stored(home: Path) -> dict[str, Any]:
    """What `holdfast init` wrote down in a store; empty where it never ran.

    Raises:
        UsageError: the file is no JSON object.
    """
    path = home / STORED
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}", hint=MEND) from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object", hint=MEND)
    return found


def places(
    environ: Mapping[str, str] | None = None, directory: str | os.PathLike[str] | None = None
) -> list[tuple[Level, Path, bool]]:
    """Where files are looked for by themselves: the level, the path, and whether there is one."""
    environ = os.environ if environ is None else environ
    here = Path(os.path.abspath(directory or "."))
    project = next((each / PROJECT for each in (here, *here.parents) if os.path.isfile(each / PROJECT)), None)
    # By os.path: a user without a home, as in containers, has no file there, and pathlib would raise.
    user = Path(os.path.expanduser(Path(environ.get("XDG_CONFIG_HOME") or "~/.config", "holdfast", "config.yaml")))
    wanted: list[tuple[Level, Path]] = [
        ("project", project or here / PROJECT),
        ("user", user),
        ("system", Path(SYSTEM)),
    ]
    return [(level, path, os.path.isfile(path)) for level, path in wanted]


def read_file(path: Path) -> Source:
    """What a file says; one that cannot be read is a problem."""
    from holdfast.settings.reading import FILE_BYTES_MAX, read  # PyYAML is 18 ms, which no command pays without a file

    try:
        with path.open("rb") as file:
            return read(file.read(FILE_BYTES_MAX + 1), str(path), os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        source = Source(str(path))
        source.problems.append(Problem(Place(str(path)), "", f"cannot be read: {error.strerror}"))
        return source


def _sources(
    path: str | os.PathLike[str] | None,
    agent: str | None,
    environ: Mapping[str, str],
    directory: str | os.PathLike[str] | None,
) -> Iterator[tuple[Level, Source]]:
    named = path or environ.get(NAMED)
    if named and os.fspath(named) == os.devnull:
        return  # no file at all, as with pip
    if named:
        for each in _named(Path(directory or ".", named).expanduser(), agent):
            yield "project", each
    for level, place, there in places(environ, directory):
        if not there or (named and level == "project"):
            continue
        yield level, _doubted(read_file(place), place, found=level == "project")


def _named(path: Path, agent: str | None) -> Iterator[Source]:
    """The file that was named, or those in the folder; the first is heard first."""
    beside = path
    if not path.is_dir():
        yield read_file(path)
        if path.parent.name != AGENTS:
            return
        beside = path.parent.parent
    else:
        every = {each.stem: each for each in sorted((path / AGENTS).glob(f"*{_SUFFIX}"))}
        own = every.get(agent) if agent else next(iter(every.values())) if len(every) == 1 else None
        if own is not None:
            yield read_file(own)
        files = [path / PROJECT, *(path / name for name in BESIDE)]
        if not every and not any(each.is_file() for each in files):
            empty = Source(str(path))
            what = f"a folder without {PROJECT}, {BESIDE[0]}, {BESIDE[1]} or {AGENTS}/*{_SUFFIX}"
            empty.problems.append(Problem(Place(str(path)), "", what))
            yield empty
    for name in (PROJECT, *BESIDE) if path.is_dir() else BESIDE:
        if (beside / name).is_file():
            yield read_file(beside / name)


def _doubted(source: Source, path: Path, *, found: bool) -> Source:
    """A file that nobody named: what another user could have put there is refused.

    Args:
        source: what it says.
        path: where it lies.
        found: whether it is a project's, where another's file may lie, and from which no command is taken.
    """
    place = Place(source.name)
    try:
        known = path.stat()
    except OSError:
        return source
    anybody = bool(known.st_mode & stat.S_IWOTH)
    if anybody or (found and known.st_uid not in (0, os.geteuid())):
        whose = "everybody may write to it" if anybody else "it is another user's"
        refused = Source(source.name)
        refused.problems.append(Problem(place, "", f"not obeyed, since {whose}: name it by --config if you trust it"))
        return refused
    for said in list(source.said.values()) if found else ():
        if KEYS[said.path].kind == "command":
            what = "a command is not taken from a file that was only found: name the file by --config"
            source.problems.append(Problem(said.place, said.path, what))
    return source


# -- secrets ----------------------------------------------------------------------------------------------------------


class Command:
    """A secret that a command prints; kept in memory, asked for again when it was refused. Safe to share.

    Args:
        words: the program and its arguments; no shell reads them.
        what: the key that names it, for messages.
    """

    def __init__(self, words: tuple[str, ...], what: str) -> None:
        self._words, self._what = words, what
        self._lock = threading.Lock()
        self._value = ""

    def __call__(self, anew: bool = False) -> str:
        """The secret.

        Args:
            anew: the one that was printed last is not good any more.

        Raises:
            UsageError: the command failed, took too long, or printed nothing, or several lines.
        """
        with self._lock:
            if anew or not self._value:
                self._value = self._run()
            return self._value

    def _run(self) -> str:
        import subprocess

        program = self._words[0]  # never its arguments: they may hold a secret
        hint = "run it by hand to see why"
        try:
            done = subprocess.run(
                [os.path.expanduser(program), *self._words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_S,
            )
        except subprocess.TimeoutExpired:
            raise UsageError(f"{self._what}: {program} took more than {COMMAND_S:.0f} s", hint=hint) from None
        except OSError as error:
            raise UsageError(f"{self._what}: cannot run {program}: {error.strerror}", hint=hint) from None
        if done.returncode:
            raise UsageError(f"{self._what}: {program} ended with {done.returncode}", hint=hint)
        try:
            text = done.stdout[:SECRET_BYTES_MAX].decode().strip()
        except UnicodeDecodeError:
            text = ""
        if not text or not text.isprintable():
            raise UsageError(f"{self._what}: {program} did not print one line of text", hint=hint)
        return text


def secret(configuration: Configuration, section: str, name: str) -> Secret:
    """The secret of a section: itself, its file, or what runs its command; None where nobody named any.

    Args:
        configuration: what holds.
        section: store, hub or serve.
        name: token or passphrase.
    """
    plain = f"{section}.{name}"
    if plain in KEYS and (value := configuration.get(plain)):
        return str(value)
    if words := configuration.get(f"{plain}_command"):
        return Command(words, f"{plain}_command")
    file = configuration.get(f"{plain}_file")
    return Path(file).expanduser() if file else None


def reveal(given: Secret, what: str) -> str | None:
    """The secret itself, read or asked for now; None without one.

    Args:
        given: what `secret` gave.
        what: its name in messages.

    Raises:
        UsageError: the file is not there, not readable or empty; or the command failed.
    """
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Path):
        return given(False)
    try:
        text = given.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"no {what} to be read from {given}: {why}", hint=f"--{what}-file PATH") from error
    if not text:
        raise UsageError(f"{given} holds no {what}", hint="one line of text")
    return text


# -- opening ----------------------------------------------------------------------------------------------------------


def limits_of(configuration: Configuration, *, agent: bool = False) -> Limits:
    """How a node is to treat its disk.

    Args:
        configuration: what holds.
        agent: also how much of the agent that it names is kept here.
    """
    from holdfast.node.directory import Limits

    names = {"floor_bytes": "limits.floor", "ballast_bytes": "limits.ballast", "scan_s": "scan.every"}
    retention = retention_of(configuration) if agent else None
    return Limits(**{field: configuration.get(path) for field, path in names.items()}, retention=retention)


def keep_vectors(configuration: Configuration) -> None:
    """Has searches of this process keep so many vectors in memory as is said."""
    if configuration.has("search.memory"):
        from holdfast.corpus.search.nearest import CACHE

        CACHE.limit = configuration.get("search.memory")


def retention_of(configuration: Configuration) -> Retention | None:
    """How much of its agent is to be kept here; None where nobody says, and what was written down holds.

    A role that is none of `holdfast.retention.ROLES` has no budget of its own.
    """
    from holdfast.retention import ROLES, Retention

    role = str(configuration.get("agent.role") or "").strip().lower()
    said = [path for path in _RETENTION if configuration.has(path)]
    if not said and role not in ROLES:
        return None
    given = {
        "max_bytes": configuration.get("cache.max_bytes"),
        "days": configuration.get("cache.retention_days") / DAY_S,
    }
    if role in ROLES:
        tokens = configuration.get("agent.context_tokens")
        found = Retention.of(role, context_tokens=tokens, max_bytes=given["max_bytes"] or 0, days=given["days"])
        if given["max_bytes"] == 0:
            found = msgspec.structs.replace(found, max_bytes=0)
    else:
        found = Retention(max_bytes=given["max_bytes"] or 0, days=given["days"])
    days = {name: seconds / DAY_S for name, seconds in dict(configuration.get("cache.collection_days")).items()}
    more: dict[str, Any] = {"collection_days": days, "wait_s": configuration.get("cache.wait")}
    if configuration.has("cache.keep"):
        more["keep"] = configuration.get("cache.keep")
    return msgspec.structs.replace(found, keep_fetched=configuration.get("cache.keep_fetched"), **more)


def unsealing_of(configuration: Configuration) -> Unsealing:
    """Where the key of sealed collections is."""
    from holdfast.node.vault import Unsealing

    file = configuration.get("store.key_file")
    passphrase = secret(configuration, "store", "passphrase")
    return Unsealing(
        key_file=Path(file).expanduser() if file else None,
        passphrase=None if passphrase is None else lambda: reveal(passphrase, "passphrase"),
        keyring=bool(configuration.get("store.keyring")),
    )


def store_arguments(configuration: Configuration, *, agent: bool = True) -> dict[str, Any]:
    """What `Store` and `AsyncStore` are opened with, besides the directory and the agent.

    Args:
        configuration: what holds.
        agent: whether it is opened for the agent that the configuration names: a budget is for no other.
    """
    from holdfast.node.secrets import redact_secrets

    hubs = configuration.hubs
    return {
        "hub": hubs,
        "token": secret(configuration, "hub", "token") if hubs else None,
        "level": configuration.get("store.level"),
        "cas": configuration.get("store.cas"),
        "limits": limits_of(configuration, agent=agent),
        "sealed": configuration.get("store.sealed"),
        "redact": redact_secrets if configuration.get("store.redact") else None,
    }


@contextmanager
def attached(configuration: Configuration, *, make: bool = True) -> Iterator[Directory]:
    """The node directory as it is configured, shared with every store that is opened on it meanwhile.

    Raises:
        NoStore: there is none, and it should not be made.
    """
    from holdfast.node.directory import attach, detach

    home = store_path(configuration)
    directory = attach(home, limits=limits_of(configuration), make=make)
    try:
        directory.unsealing = unsealing_of(configuration)
        yield directory
    finally:
        detach(directory)


def opened(kind: Callable[..., T], path: str | os.PathLike[str] | None, agent: str | None) -> T:
    """A store as its configuration says; see `Store.from_config`."""
    configuration = load(path, flags={"agent.id": agent})
    configuration.check()
    name = configuration.get("agent.id")
    if name is None:
        raise UsageError("no agent is named", hint="agent=…, or agent.id (agent_id) in the file, or HOLDFAST_AGENT")
    if not configuration.get("agent.enabled"):
        place = configuration.place("agent.enabled")
        raise UsageError(f"agent {name} is switched off ({place})", hint="enabled: true")
    keep_vectors(configuration)
    with attached(configuration) as directory:
        return kind(directory.path, name, **store_arguments(configuration))
