"""What `Hub.search` and `Hub.add_index` do: whoever has an embedding function asks with it, and fills by it."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import socket
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from holdfast import clock
from holdfast.errors import Denied, HoldfastError, HubError, HubUnavailable, NotFound, UsageError
from holdfast.log.hits import Hit, Hits, IndexStatus, hit_in, hit_of
from holdfast.node.looking import When
from holdfast.node.parts import JSON, encode
from holdfast.protocol.retry import Backoff

if TYPE_CHECKING:
    from holdfast.corpus.search.embedding import Embed, Embedder
    from holdfast.corpus.search.filling import Task
    from holdfast.corpus.search.vectors import Declared
    from holdfast.node.hub import Hub
    from holdfast.query import Condition

logger = logging.getLogger(__name__)

ASK_S: Final = 30.0
FILL_S: Final = 60.0
HOLD_S: Final = 60
"""How long a function may take for one lot before the hub gives it to another filler too."""
IDLE_S: Final = (0.25, 5.0)
"""How often an idle filler asks for more: soon after there was something, and then ever less."""


_MAKING = threading.Lock()


def asking_of(hub: Hub) -> Asking:
    """What a hub's searches are asked through; made when first needed."""
    with _MAKING:
        if hub._asking is None:
            hub._asking = Asking(hub)
        return hub._asking


class Asking:
    """The functions that questions to a hub are embedded with, and the thread that fills by them. Safe to share.

    Args:
        hub: it, or several: a question goes to the first that answers, and each is filled.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._embedders: dict[str, dict[str, Embedder]] = {}  # by collection, then identity; the newest last
        self._searched: dict[str, str] = {}  # the identity that the hub said it searches, by collection
        self._fillers: list[Filling] = []

    # -- asking ---------------------------------------------------------------------------------------------------

    def search(self, question: Mapping[str, Any]) -> Hits:
        """What a question finds, given as `Hub.search` takes it; it is embedded here where it can be.

        Raises:
            UsageError: a filter or a time that is none.
            HoldfastError: the function failed, and vectors were asked for.
        """
        said = {**question, "filter": _filter(question.get("filter")), "at": _moment(question.get("at"))}
        asked = {name: value for name, value in said.items() if value is not None}
        collection, mode = asked.get("collection"), asked.get("mode", "auto")
        known = self._embedders.get(collection, {}) if collection is not None else {}
        if not known or mode == "text" or asked.get("at") is not None:
            return self._posted(asked)[0]
        return self._embedded(asked, str(collection), known)

    def _embedded(self, asked: dict[str, Any], collection: str, known: dict[str, Embedder]) -> Hits:
        identity = self._searched.get(collection, "")
        if identity not in known:
            identity = next(reversed(known))
        found: Hits | None = None
        try:
            found, searched = self._posted(self._with_vector(asked, known[identity], identity))
        except UsageError:
            # Perhaps only because the hub searches another index than we asked for: one has replaced the other.
            searched = self._hub.ask(lambda hub: _look(hub, collection)).identity if len(known) > 1 else identity
            if searched == identity or searched not in known:
                raise
        if searched is not None:
            self._searched[collection] = searched
        if found is not None and (searched is None or searched == identity or searched not in known):
            return found
        return self._posted(self._with_vector(asked, known[str(searched)], str(searched)))[0]

    def _with_vector(self, asked: dict[str, Any], embedder: Embedder, identity: str) -> dict[str, Any]:
        import base64

        try:
            vector = base64.b64encode(embedder.query(asked["q"])).decode()
        except HoldfastError as error:
            if asked.get("mode", "auto") != "auto":
                raise
            logger.warning("search goes on by words alone: %s", error)
            return asked
        return {**asked, "vector": vector, "identity": identity}

    def _posted(self, asked: dict[str, Any]) -> tuple[Hits, str | None]:
        body = encode(asked)

        def ask(hub: Hub) -> tuple[Hits, str | None]:
            answer = hub.client.ask("POST", "/v1/search", body=body, headers=JSON, timeout=ASK_S)
            if answer.status in (404, 405) and answer.gen:
                return _asked_by_words(hub, asked), None
            if not answer.ok:
                raise answer.error()
            found = answer.json()
            hits = [_hit(hub, each) for each in found["hits"]]
            told = Hits(hits, mode=found["mode"], partial=found["partial"], pending=found["pending"])
            return told, found.get("identity")

        return self._hub.ask(ask)

    # -- indexes --------------------------------------------------------------------------------------------------

    def every(self) -> list[IndexStatus]:
        """See `Hub.indexes`."""
        found = self._hub.ask(lambda hub: hub.client.want("GET", "/v1/indexes").json())
        return [_status(each) for each in found["indexes"]]

    def knows(self, collection: str, declared: Declared, embed: Embed) -> None:
        """Has questions to this collection embedded by a function, where the hub searches such an index."""
        from holdfast.corpus.search.embedding import Embedder

        with self._lock:
            known = self._embedders.get(collection, {})
            if declared.identity not in known:
                self._embedders[collection] = {**known, declared.identity: Embedder(embed, declared)}

    def add(
        self,
        collection: str,
        embed: Embed | None,
        model: str,
        fields: Sequence[str],
        dims: int | None,
        chunk: int | None,
    ) -> IndexStatus:
        """See `Hub.add_index`."""
        from holdfast.corpus.search.vectors import declared

        said = declared(model, fields=fields, dims=dims, chunk=chunk)
        body = {"model": model, "fields": list(said.fields), "chunk": said.chunk, "dims": said.dims or None}
        try:
            found = self._hub.ask(lambda hub: _declare(hub, collection, body))
        except Denied:
            found = self._hub.ask(lambda hub: _look(hub, collection))
            if embed is None or said.identity not in (found.identity, found.building):
                raise
            self.knows(collection, said, embed)  # it may ask, and others fill
            return found
        if embed is not None:
            self.knows(collection, said, embed)
            self._fill(collection, said, body)
        return found

    def rebuild(self, name: str) -> IndexStatus:
        """Has a hub forget the vectors of a collection, so that all of them are made anew."""
        path = f"/v1/indexing/rebuild/{quote(name, safe='')}"
        return self._hub.ask(lambda hub: _status(hub.client.want("POST", path).json()))

    def drop(self, name: str) -> bool:
        """See `Hub.drop_index`."""
        with self._lock:
            self._embedders.pop(name, None)
            self._searched.pop(name, None)
            for filler in self._fillers:
                filler.leave(name)
        dropped, away = False, list[HubUnavailable]()
        for hub in self._hub.each:
            try:
                dropped = _drop(hub, name) or dropped
            except HubUnavailable as error:
                away.append(error)
        if len(away) == len(self._hub.each):
            raise away[0]
        return dropped

    def _fill(self, collection: str, declared: Declared, body: dict[str, Any]) -> None:
        with self._lock:
            if not self._fillers:
                self._fillers = [Filling(hub) for hub in self._hub.each]
            for filler in self._fillers:
                filler.take(collection, declared, body, self._embedders[collection][declared.identity])

    def close(self) -> None:
        """Ends the filling behind the lot that is under way; a second close is fine."""
        with self._lock:
            fillers, self._fillers = self._fillers, []
            embedders = [each for known in self._embedders.values() for each in known.values()]
        for filler in fillers:
            filler.stop()
        for embedder in embedders:
            embedder.close()


class HubSource:
    """One index at one hub: texts come from it, and vectors go there.

    Args:
        hub: of one address.
        collection, identity: which index.
        who: fills it, by a name that no other process has.
    """

    def __init__(self, hub: Hub, collection: str, identity: str, who: str) -> None:
        self._hub, self._place = hub, quote(collection, safe="")
        self._said = {"identity": identity, "filler": who}

    def next(self) -> Task | None:
        """What is to be embedded now; None when there is nothing, or not yet, or another filler has it.

        Raises:
            NotFound: the index has ended.
        """
        from holdfast.corpus.search.filling import Task

        found = self._post("pending", hold_s=HOLD_S)
        if not found["records"] and not found["failed"]:
            return None
        return Task(
            after=found["after"],
            upto=found["upto"],
            texts={each["pos"]: tuple(each["pieces"]) for each in found["records"]},
            failed={each["pos"]: each["error"] for each in found["failed"]},
        )

    def done(self, task: Task, made: Mapping[int, list[bytes]], failed: Mapping[int, str]) -> bool:
        """Has the hub keep what became of a task; False if another was faster."""
        import base64

        records = [
            {"pos": pos, "vectors": [base64.b64encode(one).decode() for one in each]} for pos, each in made.items()
        ]
        told = [{"pos": pos, "error": error} for pos, error in failed.items()]
        return bool(self._post("vectors", after=task.after, upto=task.upto, records=records, failed=told)["kept"])

    def failing(self, error: str) -> None:
        """Tells the hub that the function fails whatever it is given."""
        self._post("vectors", error=error or "?")

    def leave(self) -> None:
        """Tells the hub that nothing more comes from here."""
        self._post("vectors", leave=True)

    def _post(self, what: str, **more: Any) -> Any:
        body = encode({**self._said, **more})
        path = f"/v1/indexing/{what}/{self._place}"
        return self._hub.client.want("POST", path, body=body, headers=JSON, timeout=FILL_S).json()


class _Wanted(msgspec.Struct):
    """An index that a thread fills: how it is declared, and by what it is filled."""

    declared: Declared
    body: dict[str, Any]
    embedder: Embedder
    source: HubSource | None = None


class Filling:
    """A thread that fills indexes of one hub, through its restarts, until it is stopped.

    Args:
        hub: of one address.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._who = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()  # guards _wanted
        self._wanted: dict[str, _Wanted] = {}
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-fill", daemon=True)

    def take(self, collection: str, declared: Declared, body: dict[str, Any], embedder: Embedder) -> None:
        """Fills this index of a collection from now on, and no other of it."""
        with self._lock:
            have = self._wanted.get(collection)
            if have is None or have.declared != declared:
                self._wanted[collection] = _Wanted(declared, body, embedder)
            if self._thread.ident is None:
                self._thread.start()
        self._woken.set()

    def leave(self, collection: str) -> None:
        """Fills this collection's index no more."""
        with self._lock:
            self._wanted.pop(collection, None)

    def stop(self) -> None:
        """Ends behind the lot that is under way."""
        self._stop.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        patience, pause = Backoff(random.Random()), IDLE_S[0]
        while not self._stop.is_set():
            try:
                more = self._turn()
                patience.reset()
            except HubUnavailable:
                self._stop.wait(patience.delay())
                continue
            except Exception as error:
                # Denied, a full disk, another version: a person has to look, and it goes on when it may.
                logger.warning("the index at %s cannot be filled: %s", self._hub.url, error)
                more, pause = False, IDLE_S[1]
            pause = IDLE_S[0] if more else min(2 * pause, IDLE_S[1])
            if not more and self._woken.wait(pause):
                self._woken.clear()
        for each in self._wanted.values():
            if each.source is not None:
                with contextlib.suppress(HoldfastError):
                    each.source.leave()

    def _turn(self) -> bool:
        """One lot for each index; whether there is more."""
        from holdfast.corpus.search.filling import step

        with self._lock:
            wanted = list(self._wanted.items())
        more = False
        for collection, each in wanted:
            if self._stop.is_set():
                return False
            if each.source is None:  # this hub may not have answered when it was declared
                _declare(self._hub, collection, each.body)
                each.source = HubSource(self._hub, collection, each.declared.identity, self._who)
            try:
                more = step(each.source, each.embedder) or more
            except NotFound:
                # Somebody has dropped it, or declared another way: it is his word that counts.
                logger.warning("the index of %s at %s has ended: it is filled no more", collection, self._hub.url)
                self.leave(collection)
        return more


# -- asking one hub ---------------------------------------------------------------------------------------------------


def _declare(hub: Hub, collection: str, body: dict[str, Any]) -> IndexStatus:
    said = {name: value for name, value in body.items() if value is not None}
    return _status(hub.client.want("PUT", _path(collection), body=encode(said), headers=JSON).json())


def _look(hub: Hub, collection: str) -> IndexStatus:
    return _status(hub.client.want("GET", _path(collection)).json())


def _drop(hub: Hub, collection: str) -> bool:
    return bool(hub.client.want("DELETE", _path(collection)).json()["dropped"])


def _path(collection: str) -> str:
    return f"/v1/indexes/{quote(collection, safe='')}"


def _status(data: Any) -> IndexStatus:
    try:
        return msgspec.convert(data, IndexStatus)
    except msgspec.ValidationError as error:
        raise HubError(f"the hub's answer is not as agreed: {error}", hint="is it another version?") from error


def _asked_by_words(hub: Hub, asked: Mapping[str, Any]) -> Hits:
    """What a hub finds that knows no search but by words, if that is what is asked.

    Raises:
        HubError: something else is asked.
    """
    more = [name for name in ("filter", "at", "min_score") if name in asked]
    if more or asked.get("mode", "auto") not in ("auto", "text"):
        raise HubError(f"{hub.url} is older, and searches by words alone", hint="update it")
    query = {name: asked.get(name) for name in ("q", "agent", "collection", "kind", "limit")}
    found = hub.client.want("GET", "/v1/search", query=query).json()
    hits = [hit_of(hub.version_of(each), 1.0, None) for each in found["records"]]
    return Hits(hits, partial=found["partial"])


def _hit(hub: Hub, data: dict[str, Any]) -> Hit:
    return hit_in(data, hub.version_of(data))


def _filter(said: Condition | Mapping[str, Any] | None) -> Any:
    from holdfast.query import read_condition, to_json

    return None if said is None else to_json(read_condition(said))


def _moment(at: When | None) -> Any:
    """A time as text, a cursor as it is, a position as a number."""
    if at is None or (isinstance(at, str) and "@" in at) or (isinstance(at, int) and not isinstance(at, bool)):
        return at
    if not isinstance(at, str | float | datetime):
        raise UsageError(f"not a time: {at!r:.80}", hint="seconds since 1970, ISO 8601, a datetime, or a cursor")
    return clock.iso(clock.parse_time(at))
