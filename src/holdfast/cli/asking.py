"""Who is asked by a search: every log on this machine, and the hub; or the one agent that was named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.cli.index import Function
from holdfast.cli.settings import Settings
from holdfast.errors import HoldfastError, HubUnavailable, NotFound, UsageError

if TYPE_CHECKING:
    from holdfast.log.hits import Hit, Hits
    from holdfast.node.store import Store

_MODES: Final = ("hybrid", "vector", "text")
"""Of several answers the one that was looked for hardest says how."""


class Answer(msgspec.Struct):
    """What was found, the best first, and who was asked.

    Attributes:
        hits: of everybody.
        asked: the agents whose logs here were searched.
        hub: whether a hub answered; None: none was asked.
        mode, partial, pending: as `Hits` has them.
        left_out: agents who cannot be asked so, and why.
        failed: agents whose logs could not be read, and why.
    """

    hits: list[Any] = []
    asked: list[str] = []
    hub: bool | None = None
    mode: str = "text"
    partial: bool = False
    pending: int = 0
    left_out: list[tuple[str, str]] = []
    failed: list[tuple[str, str]] = []


def ask(settings: Settings, words: str, how: dict[str, Any], *, local: bool, function: Function | None) -> Answer:
    """Searches everywhere, or where the one agent that was named is.

    Args:
        settings: of the command line.
        words: what is looked for.
        how: what `Store.search` takes besides; its `agent` is whose alone.
        local: asks no hub.
        function: what makes vectors of questions.

    Raises:
        NotFound: the agent that was named is not here, and there is no hub.
        UsageError: nobody can be asked so.
        HubUnavailable: the hub does not answer, and nothing is here.
    """
    one = how["agent"] = _one(settings, how["agent"])
    at = how["at"] if isinstance(how["at"], str) else ""
    answer = Answer()
    found: list[Hits] = []
    away: HubUnavailable | None = None
    hub = settings.hub_url is not None and not local
    if hub and not at.startswith("log."):
        try:
            found.append(_hub(settings, words, how, function))
            answer.hub = True
        except HubUnavailable as error:
            away, answer.hub = error, False
    here = [] if hub and "@" in at else _here(settings, one)
    if at.startswith("log.") and len(here) > 1:
        raise UsageError(f"{at} is a place in one log", hint=f"--agent NAME: here are {', '.join(here[:10])}")
    stale: set[tuple[str, str, str]] = set()
    wrong: UsageError | None = None
    if answer.hub and how["mode"] in ("vector", "hybrid"):
        here = []  # vectors are the hub's there
    indexed = 0
    for agent in here:
        try:
            with settings.open_store(agent=agent, hub=False) as store:
                if function is not None and answer.hub is None:
                    indexed += _is_indexed(store, function, how)
                found.append(store.search(words, **how))
                if not at and answer.hub:
                    stale |= _stale(store, found[0])
            answer.asked.append(agent)
        except UsageError as error:
            wrong = wrong or error
            answer.left_out.append((agent, error.message))
        except HoldfastError as error:
            if len(here) == 1:
                raise
            answer.failed.append((agent, error.message))
    if function is not None and here and not indexed and answer.hub is None:
        with settings.open_store(agent=here[0], hub=False) as store:
            function.ask_at(store, how["collection"])  # says what is missing
    if not found:
        if away is not None:
            raise away
        if wrong is not None:
            raise wrong
    answer.hits = _merged(found, stale)[: how["limit"]]
    answer.mode = next((mode for mode in _MODES if any(each.mode == mode for each in found)), "text")
    answer.partial = any(each.partial for each in found)
    answer.pending = sum(each.pending for each in found)
    return answer


def _one(settings: Settings, agent: str | None) -> str | None:
    """The agent that the search is narrowed to, by `--agent` or by `--from`."""
    if agent is not None and settings.agent is not None and agent != settings.agent:
        raise UsageError(f"--agent {settings.agent} and --from {agent} name two", hint="give one of them")
    return agent or settings.agent


def _here(settings: Settings, one: str | None) -> list[str]:
    """The agents whose logs here are searched."""
    from holdfast.node.directory import agents_in

    if settings.hub_url is None:
        settings.need_store()
    agents = agents_in(settings.path)
    if one is None:
        return agents
    if one not in agents and settings.hub_url is None:
        names = f": here are {', '.join(agents[:10])}" if agents else ""
        raise NotFound(f"no agent {one} on this machine{names}", hint="--hub URL asks a hub")
    return [one] if one in agents else []


def _hub(settings: Settings, words: str, how: dict[str, Any], function: Function | None) -> Hits:
    from holdfast.node.hub import Hub

    with Hub(settings.hub_urls, settings.token_path) as hub:
        if function is not None:
            function.ask_at(hub, how["collection"])
        return hub.search(words, **how)


def _is_indexed(store: Store, function: Function, how: dict[str, Any]) -> bool:
    """Has a store's questions embedded, if it has an index of the collection; else it is searched by words."""
    if how["collection"] is not None and all(each.name != how["collection"] for each in store.indexes()):
        return False
    function.ask_at(store, how["collection"])
    return True


def _stale(store: Store, hits: Hits) -> set[tuple[str, str, str]]:
    """What the hub found of this log and is no longer so: the hub does not have all of it yet."""
    mine = store._log.branch.stream.hex()
    found = set()
    for hit in hits:
        if hit.stream == mine:
            newest = store._log.newest(hit.collection, hit.key)
            if newest is None or newest.record.key_version > hit.version:
                found.add((hit.stream, hit.key, hit.etag))
    return found


def _merged(found: list[Hits], stale: set[tuple[str, str, str]]) -> list[Hit]:
    """Hits of several places, each once: the hub, which is asked first, may have what is here as well."""
    every: dict[tuple[str, str, str], Hit] = {}
    for hits in found:
        for hit in hits:
            key = (hit.stream, hit.collection, hit.key)
            there = every.get(key)
            if (hit.stream, hit.key, hit.etag) not in stale and (there is None or there.version < hit.version):
                every[key] = hit
    return sorted(every.values(), key=lambda hit: (-hit.score, -hit.time))
