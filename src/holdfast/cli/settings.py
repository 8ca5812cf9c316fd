"""Where a command works: which store, hub, agent and token. Who is heard first, `holdfast.settings.layers` says."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.cli.show import Show
from holdfast.errors import HoldfastError, NoStore, NotCached, NotFound, Sealed, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.log import OpenLog
    from holdfast.node.configured import Secret
    from holdfast.node.directory import Directory
    from holdfast.node.store import Store
    from holdfast.settings.layers import Configuration

CONFIG = "config.json"
_OTHERS_MAX = 50
"""So many other agents are asked whether they have what was asked of one."""
T = TypeVar("T")


def configured(path: str, *, unless: str = "", suffix: str = "") -> Callable[[], Any]:
    """A default for an option or argument: what is configured, looked at when the command line does not say it.

    Args:
        path: the key.
        unless: an option that excludes this one.
        suffix: put behind the value.
    """

    def found() -> Any:
        import click

        context = click.get_current_context()
        settings = context.find_root().obj
        if not isinstance(settings, Settings):
            return None
        if unless and context.params.get(unless):
            settings.tell_outranked(path, f"--{unless}")
            return None
        value = settings.configuration.get(path)
        if value in (None, ""):
            return None
        return f"{round(value)}{suffix}" if suffix else value

    return found


class Settings:
    """The global options of one command line, and what follows from them and from the configuration."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.store: str | None = None
        self.hub: tuple[str, ...] = ()
        self.agent: str | None = None
        self.token_file: str | None = None
        self.config_file: str | None = None
        self.more: dict[str, Any] = {}
        """What else the command line says, by key."""
        self.as_json = as_json
        self.no_color = False
        self.quiet = False
        self.verbose = False
        self._show: Show | None = None
        self._warned = False
        self._loaded: tuple[dict[str, Any], Configuration] | None = None
        self._secrets: dict[tuple[str, str], Secret] = {}

    @property
    def show(self) -> Show:
        """How to print."""
        if self._show is None:
            self._show = Show(as_json=self.as_json, color=not self.no_color, quiet=self.quiet)
        return self._show

    @property
    def configuration(self) -> Configuration:
        """What is configured for this command.

        Raises:
            UsageError: something in it is wrong; all that is, is told.
        """
        found = self.read_configuration()
        found.check()
        return found

    def read_configuration(self, *, anew: bool = False) -> Configuration:
        """What is configured, also if some of it is wrong.

        Args:
            anew: read the files again.
        """
        flags = {"store.path": self.store, "hub.urls": tuple(url.rstrip("/") for url in self.hub)}
        flags |= {"hub.token_file": self.token_file, "serve.token_file": self.token_file}
        flags |= self.more
        if self._loaded is None or self._loaded[0] != flags or anew:
            from holdfast.node.configured import load

            # `--agent` names whom a command is about; whom it acts as is another question.
            self._loaded = (flags, load(self.config_file, agent=self.agent, flags=flags))
        return self._loaded[1]

    @property
    def path(self) -> Path:
        """The store's directory; whether it is there is another question."""
        from holdfast.node.configured import store_path

        return store_path(self.configuration)

    @property
    def me(self) -> str:
        """The agent that this machine's commands act as, whatever `--agent` says."""
        return self.configuration.get("agent.id") or "main"

    @property
    def who(self) -> str:
        """The agent that the command is about."""
        return self.agent or self.me

    @property
    def is_named(self) -> bool:
        """Whether somebody said for this command whose log it is about: an option, a variable, or the project."""
        return self.agent is not None or self.configuration.level("agent.id") in ("environment", "project")

    def others(self) -> list[str]:
        """The agents with a log here besides the one that the command is about; none where somebody said whose."""
        from holdfast.node.directory import agents_in

        return [] if self.is_named else [each for each in agents_in(self.path) if each != self.me]

    @property
    def level(self) -> str:
        """What a returned write survives."""
        found: str = self.configuration.get("store.level")
        return found

    @property
    def hub_urls(self) -> tuple[str, ...]:
        """The hubs' addresses, in the order in which they are asked; empty if there is none."""
        return self.configuration.hubs

    @property
    def hub_url(self) -> str | None:
        """The first hub's address, or None if there is none."""
        return next(iter(self.hub_urls), None)

    @property
    def token(self) -> str | None:
        """The hub's token, read from its file, or asked of its command; None without one.

        Raises:
            UsageError: the file is not there, not readable or empty; or the command failed.
        """
        return self.secret("hub", "token")

    @property
    def token_path(self) -> Secret:
        """Where the hub's token comes from, so that one that is changed while we run is read anew: its file, or itself
        as the environment has it, or what prints it."""
        return self.secret_source("hub", "token")

    def secret(self, section: str, name: str) -> str | None:
        """A secret of the configuration, read or asked for now; None where none is configured.

        Raises:
            UsageError: its file is not there, not readable or empty; or its command failed.
        """
        from pathlib import Path

        from holdfast.node.configured import reveal

        given = self.secret_source(section, name)
        found = reveal(given, name)
        if isinstance(given, Path) and not self._warned and given.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            self._warned = True
            self.show.warn(f"others may read {given}", hint=f"chmod 600 {given}")
        return found

    def secret_source(self, section: str, name: str) -> Secret:
        """Where a secret comes from: itself, its file, or what runs its command; None where none is configured."""
        at = (section, name)
        if at not in self._secrets:
            from holdfast.node.configured import secret

            self._secrets[at] = secret(self.configuration, section, name)
        return self._secrets[at]

    def tell_outranked(self, path: str, flag: str) -> None:
        """Warns if what is configured is passed over, because an option says otherwise where something lies.

        Args:
            path: the key that is not heard.
            flag: the option that is.
        """
        found = self.read_configuration()
        if found.has(path) and found.level(path) != "last":
            self.show.warn(f"{found.place(path)} says {path}, which is not used: {flag} is heard first")

    def need_store(self) -> Path:
        """The store's directory.

        Raises:
            NoStore: there is none.
        """
        path = self.path
        if not (path / CONFIG).is_file():
            at = f" --store {path}" if self.store else ""
            raise NoStore(f"no store at {path}", hint=f"holdfast init{at}")
        return path

    def need_hub(self) -> str:
        """The hub's address.

        Raises:
            UsageError: none was given.
        """
        url = self.hub_url
        if url is None:
            raise UsageError("no hub is known", hint="--hub URL, or holdfast init --hub URL")
        return url

    def ask_hub(self, method: str, path: str, body: Any = None, *, timeout: float = 30.0) -> Any:
        """What the hub answers to a request, as JSON values.

        Args:
            method, path: of the request.
            body: sent as JSON; None: nothing is.
            timeout: seconds that it may take.
        """
        url, token = self.need_hub(), self.token_path
        import msgspec

        from holdfast.transport.client import HubClient

        client = HubClient(url, token)
        try:
            sent = {"Content-Type": "application/json"} if body is not None else None
            data = None if body is None else msgspec.json.encode(body)
            return client.want(method, path, body=data, headers=sent, timeout=timeout).json()
        finally:
            client.close()

    def open_store(self, *, agent: str | None = None, hub: bool = True) -> Store:
        """The store, open; close it, best by ``with``.

        Args:
            agent: whose log; the command's agent if None.
            hub: False leaves the hub alone, so that nothing waits for it.

        Raises:
            NoStore: there is none at the path.
        """
        self.need_store()
        from holdfast.node.configured import attached, store_arguments
        from holdfast.node.store import Store

        name = agent or self.who
        known = hub and self.hub_url is not None
        given = store_arguments(self.configuration, agent=name == self.me)
        # Not what is in the file: a token that is changed while we run is read anew.
        given["token"] = self.token_path if known and self.token else None
        given["hub"] = self.hub_urls if known else ()
        if name == self.me and not self.configuration.get("agent.enabled"):
            place = self.configuration.place("agent.enabled")
            self.show.warn(f"agent {name} is switched off ({place})", hint="enabled: true, where it is to run")
        with attached(self.configuration, make=False) as directory:
            return Store(directory.path, name, **given)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Directory]:
        """The node directory, for what concerns all its agents.

        Raises:
            NoStore: there is none at the path.
        """
        self.need_store()
        from holdfast.node.configured import attached

        with attached(self.configuration, make=False) as directory:
            yield directory

    @contextlib.contextmanager
    def open_log(self, agent: str) -> Iterator[OpenLog]:
        """An agent's log on this machine, shared with a store that has it open."""
        from holdfast.log import level

        with self.directory() as directory:
            opened = directory.open_log(agent, level(self.level))
            try:
                yield opened
            finally:
                directory.release_log(opened)

    @contextlib.contextmanager
    def reading(self, *, need_hub: bool = False) -> Iterator[tuple[Store, str | None]]:
        """A store to read from and the ``agent=`` to read: from this machine where it lies here, else through the hub.

        Args:
            need_hub: something on this machine turned out not to be (all) here: open the hub too.
        """
        from holdfast.node.batch import CAS_AGENT
        from holdfast.node.directory import Directory

        path = self.need_store()
        # The hub's own name is no agent's here, but what the hub decided is read under it, from the hub.
        if (others := self.others()) and not Directory(path).has_agent(self.me):
            hint = f"--agent NAME: here are {', '.join(others[:10])}"
            raise NotFound(f"no agent {self.me} on this machine, and nobody said whose it is", hint=hint)
        here = self.who == self.me or (self.who != CAS_AGENT and Directory(path).has_agent(self.who))
        agent = self.who if here else self.me
        with self.open_store(agent=agent, hub=need_hub or not here) as store:
            if not here and not store.hubs:
                hint = "--hub URL asks a hub; holdfast ls --agents shows who is here"
                raise NotFound(f"no agent {self.who} on this machine", hint=hint)
            yield store, None if here else self.who

    def read(self, job: Callable[[Store, str | None], T], what: str = "") -> T:
        """What `job` returns on a `reading` store; asks the hub too if part of it turns out not to be here.

        Where nobody said whose, and other agents here have such a thing too, they are named.

        Args:
            job: reads, and raises NotFound where there is nothing.
            what: it reads, as a person calls it.
        """
        try:
            found = self._read(job)
        except NotCached:
            raise
        except NotFound as error:
            if having := self._having(job):
                which = "has" if len(having) == 1 else "have"
                hint = f"{', '.join(having)} {which} it on this machine: --agent {having[0]}"
                raise NotFound(error.message, hint=hint) from error
            if "/v1/" not in error.hint:
                raise
            # A hub's hint is for whoever speaks HTTP to it.
            raise NotFound(error.message, hint=f"holdfast ls --agent {self.who} shows what there is") from error
        if what and (having := self._having(job)):
            which = "has one too" if len(having) == 1 else "have one too"
            self.show.note(f"{what} of {self.me}; on this machine {', '.join(having)} {which} (--agent)")
        return found

    def _read(self, job: Callable[[Store, str | None], T]) -> T:
        try:
            with self.reading() as (store, agent):
                return job(store, agent)
        except NotCached:
            if self.hub_url is None:
                raise
            with self.reading(need_hub=True) as (store, agent):
                return job(store, agent)

    def _having(self, job: Callable[[Store, str | None], Any]) -> list[str]:
        """Which of the others here a job finds something of."""
        having = []
        for name in self.others()[:_OTHERS_MAX]:
            with contextlib.suppress(HoldfastError), self.open_store(agent=name, hub=False) as store:
                with contextlib.suppress(NotCached, Sealed):  # it has it, elsewhere or under a key
                    job(store, None)
                having.append(name)
        return having
