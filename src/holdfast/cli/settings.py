"""Where a command works: which store, hub, agent and token. Flags before environment before what init wrote."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.cli.show import Show
from holdfast.errors import NoStore, NotCached, NotFound, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.log import OpenLog
    from holdfast.node.directory import Directory
    from holdfast.node.store import Store

CONFIG = "config.json"
MEND = """put it right; the least that it needs is {"format": 1}"""
T = TypeVar("T")


class Settings:
    """The global options of one command line, and what follows from them."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.store: str | None = None
        self.hub: tuple[str, ...] = ()
        self.agent: str | None = None
        self.token_file: str | None = None
        self.as_json = as_json
        self.no_color = False
        self.quiet = False
        self.verbose = False
        self._show: Show | None = None
        self._warned = False
        self._config: dict[str, Any] | None = None

    @property
    def show(self) -> Show:
        """How to print."""
        if self._show is None:
            self._show = Show(as_json=self.as_json, color=not self.no_color, quiet=self.quiet)
        return self._show

    @property
    def path(self) -> Path:
        """The store's directory; whether it is there is another question."""
        from pathlib import Path

        given = self.store or os.environ.get("HOLDFAST_STORE")
        if given:
            return Path(given).expanduser()
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return (Path(home) / "holdfast").expanduser()

    @property
    def config(self) -> dict[str, Any]:
        """What init wrote; empty if it never ran here.

        Raises:
            UsageError: the file is no JSON object.
        """
        if self._config is None:
            import msgspec

            path = self.path / CONFIG
            try:
                found = msgspec.json.decode(path.read_bytes())
            except FileNotFoundError:
                found = {}
            except msgspec.DecodeError as error:
                raise UsageError(f"{path} is not JSON: {error}", hint=MEND) from error
            if not isinstance(found, dict):
                raise UsageError(f"{path} holds no JSON object", hint=MEND)
            self._config = found
        return self._config

    @property
    def me(self) -> str:
        """The agent that this machine's commands act as, whatever `--agent` says."""
        return os.environ.get("HOLDFAST_AGENT") or self.config.get("agent") or "main"

    @property
    def who(self) -> str:
        """The agent that the command is about."""
        return self.agent or self.me

    @property
    def given_hubs(self) -> tuple[str, ...]:
        """The hubs that flags or the environment name (there with blanks between them)."""
        return self.hub or tuple(os.environ.get("HOLDFAST_HUB", "").split())

    @property
    def hub_urls(self) -> tuple[str, ...]:
        """The hubs' addresses, in the order in which they are asked; empty if there is none."""
        return self.given_hubs or tuple(self.config.get("hubs") or ())

    @property
    def hub_url(self) -> str | None:
        """The first hub's address, or None if there is none."""
        return next(iter(self.hub_urls), None)

    @property
    def token(self) -> str | None:
        """The hub's token, read from its file; None without one.

        Raises:
            UsageError: the file is not there, not readable or empty.
        """
        path = self.token_path
        if path is None:
            return None
        try:
            token = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"no token to be read from {path}: {why}", hint="--token-file PATH") from error
        if not token:
            raise UsageError(f"{path} holds no token", hint="one line of text, known to the hub")
        if not self._warned and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            self._warned = True
            self.show.warn(f"others may read {path}", hint=f"chmod 600 {path}")
        return token

    @property
    def token_path(self) -> Path | None:
        """The file that holds the hub's token."""
        from pathlib import Path

        given = self.token_file or os.environ.get("HOLDFAST_TOKEN_FILE") or self.config.get("token_file")
        return Path(given).expanduser() if given else None

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

    def open_store(self, *, agent: str | None = None, hub: bool = True) -> Store:
        """The store, open; close it, best by ``with``.

        Args:
            agent: whose log; the command's agent if None.
            hub: False leaves the hub alone, so that nothing waits for it.

        Raises:
            NoStore: there is none at the path.
        """
        path = self.need_store()
        from holdfast.node.store import Store

        given = self.given_hubs or None
        known = hub and self.hub_url is not None
        level = self.config.get("level", "advanced")
        # The file and not what is in it: a token that is changed while we run is read anew.
        token = self.token_path if known and self.token else None
        return Store(path, agent or self.who, hub=given if known else (), token=token, level=level)

    @contextlib.contextmanager
    def directory(self) -> Iterator[Directory]:
        """The node directory, for what concerns all its agents.

        Raises:
            NoStore: there is none at the path.
        """
        path = self.need_store()
        from holdfast.node.directory import attach, detach

        directory = attach(path, make=False)
        try:
            yield directory
        finally:
            detach(directory)

    @contextlib.contextmanager
    def open_log(self, agent: str) -> Iterator[OpenLog]:
        """An agent's log on this machine, shared with a store that has it open."""
        from holdfast.log import level

        with self.directory() as directory:
            opened = directory.open_log(agent, level(self.config.get("level", "advanced")))
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
        here = self.who == self.me or (self.who != CAS_AGENT and Directory(path).has_agent(self.who))
        agent = self.who if here else self.me
        with self.open_store(agent=agent, hub=need_hub or not here) as store:
            if not here and not store.hubs:
                hint = "--hub URL asks a hub; holdfast ls --agents shows who is here"
                raise NotFound(f"no agent {self.who} on this machine", hint=hint)
            yield store, None if here else self.who

    def read(self, job: Callable[[Store, str | None], T]) -> T:
        """What `job` returns on a `reading` store; asks the hub too if part of it turns out not to be here."""
        try:
            with self.reading() as (store, agent):
                return job(store, agent)
        except NotCached:
            if self.hub_url is None:
                raise
            with self.reading(need_hub=True) as (store, agent):
                return job(store, agent)
        except NotFound as error:
            if "/v1/" not in error.hint:
                raise
            # A hub's hint is for whoever speaks HTTP to it.
            raise NotFound(error.message, hint=f"holdfast ls --agent {self.who} shows what there is") from error
