"""`Hub.collection`: everybody's typed values, or one agent's, as a hub finds them; written through it, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from holdfast import clock
from holdfast.clock import SYSTEM, Clock
from holdfast.collections.typed import Collection, Schema, declared, schema_of
from holdfast.collections.typed.asking import Row, Rows, row_of
from holdfast.collections.typed.backing import Asked, one_by_one
from holdfast.collections.typed.schema import ENDS, VERSION, version_of
from holdfast.collections.typed.sums import Sums
from holdfast.errors import UsageError
from holdfast.log.versions import Version
from holdfast.node.batch import CAS_AGENT
from holdfast.node.looking import When
from holdfast.node.parts import Part, decode, name_in_path
from holdfast.node.proven import as_stored
from holdfast.query import to_json

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

T = TypeVar("T")
TTL_MIN_S: Final = 0.001


class _Item(msgspec.Struct):
    agent: str
    key: str
    value: Any
    version: int
    etag: str
    time: str


class _Page(msgspec.Struct):
    items: list[_Item]
    next: str | None


class _Groups(msgspec.Struct):
    groups: list[Sums]


def hub_collection_of(hub: Hub, name: str, what: Any, fields: Sequence[str], agent: str | None) -> Collection[Any]:
    """A collection at a hub; see `Hub.collection`."""
    from holdfast.node.typed import check_name

    check_name(name)
    schema = schema_of(what, fields)
    if schema.sealed or schema.local:
        raise UsageError(f"{name!r} is sealed or local: a hub cannot read it", hint="Store.collection, on its node")
    return Collection(name, schema, HubBacking(hub, name, schema, agent))


class HubBacking(Part):
    """The values of one collection at a hub. Single values are proven, pages are shown.

    Args:
        hub: it, or several.
        name: the collection's.
        schema: what is declared before the first write.
        agent: whose values it is about, and in whose name they are written; None: everybody's, to read.
    """

    _room = "/v1/collections"

    def __init__(self, hub: Hub, name: str, schema: Schema[Any], agent: str | None) -> None:
        super().__init__(hub)
        self._name = name
        self._schema = schema
        self._agent = agent
        self.wall: Clock = SYSTEM
        self._path = name_in_path(name)
        self._declared = False

    def now_ms(self) -> int:
        """The time, by this machine's clock."""
        return self.wall.now_ms()

    # -- one ------------------------------------------------------------------------------------------------------

    def put(self, key: str, raw: Any, expect: int | str | None, durable: bool) -> Version:
        """Through the hub, into its own stream; once this returns, it would not lose it."""
        agent = self._writer()
        if not self._declared:
            self._ask("PUT", f"{self._path}/schema", msgspec.to_builtins(declared(self._schema)), agent=agent)
            self._declared = True
        bare = {name: each for name, each in raw.items() if name not in (VERSION, ENDS)}
        body: dict[str, Any] = {"value": bare, "schema": version_of(raw)}
        if ENDS in raw:
            body["ttl_s"] = max(TTL_MIN_S, (raw[ENDS] - self.now_ms()) / 1000)
        return self._hub.version_of(self._ask("PUT", self._item(key), body, expect=expect, agent=agent).body)

    def replace(self, values: Sequence[tuple[str, Any, int]]) -> int:
        """Each by itself."""
        return one_by_one(self, values)

    def delete(self, key: str, reason: str, expect: int | str | None) -> Version:
        """Through the hub."""
        answer = self._ask("DELETE", self._item(key), expect=expect or None, agent=self._writer())
        return self._hub.version_of(answer.body)

    def row(self, key: str, at: When | None, agent: str | None) -> Row:
        """Proven to be what the agent wrote."""
        whose = self._whose(agent)

        def prove(hub: Hub) -> Row:
            found = hub.prove(whose, self._name, key, at)
            return row_of(as_stored(found), key, hub.value_of(found))

        return self._hub.ask(prove)

    def newest_version(self) -> int:
        """The hub itself looks, in the transaction that writes."""
        return 0

    def history(self, key: str, limit: int, agent: str | None) -> list[Version]:
        """As the hub shows it."""
        return self._hub.history(key, agent=self._whose(agent), collection=self._name, limit=limit)

    # -- many -----------------------------------------------------------------------------------------------------

    def find(self, asked: Asked) -> Rows:
        """A page; of several hubs, of the first that answers."""
        body = {
            **self._which(asked),
            "order": asked.order,
            "limit": asked.limit,
            "after": asked.after,
            "ended": asked.ended,
        }
        return _rows(decode(self._read("find", body), _Page))

    def count(self, asked: Asked) -> int:
        """How many."""
        return int(self._read("count", self._which(asked)).json()["count"])

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to."""
        return decode(self._read("aggregate", {**self._which(asked), "by": by, "of": of}), _Groups).groups

    def search(self, words: str, fields: Sequence[str], limit: int, agent: str | None) -> Rows:
        """The newest with these words."""
        body = {"words": words, "fields": tuple(fields), "limit": limit, "agent": agent or self._agent}
        return _rows(decode(self._read("search", body), _Page))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _which(self, asked: Asked) -> dict[str, Any]:
        return {"condition": to_json(asked.condition), "agent": asked.agent or self._agent}

    def _read(self, what: str, body: dict[str, Any]) -> Any:
        data = msgspec.json.encode(body)
        path = f"{self._room}/{self._path}/{what}"
        headers = {"Content-Type": "application/json"}
        return self._hub.ask(lambda hub: hub.client.want("POST", path, body=data, headers=headers))

    def _item(self, key: str) -> str:
        return f"{self._path}/items/{name_in_path(key)}"

    def _whose(self, agent: str | None) -> str:
        if self._schema.conflict == "cas":
            return CAS_AGENT
        whose = agent or self._agent
        if whose is None:
            raise UsageError(
                f"whose {self._name}? Everybody may have that key", hint="agent=…, or Hub.collection(…, agent=…)"
            )
        return whose

    def _writer(self) -> str:
        if self._agent is None:
            raise UsageError(f"in whose name is {self._name} written?", hint="Hub.collection(…, agent=…)")
        return self._agent


def _rows(page: _Page) -> Rows:
    rows = [
        Row(
            agent=each.agent,
            key=each.key,
            raw=each.value,
            version=each.version,
            etag=each.etag,
            time=clock.parse_time(each.time) / 1000,
        )
        for each in page.items
    ]
    return Rows(rows, page.next or "")
