"""Rows of tables from Python, as `Hub.tables`, and what SQL finds over a hub, as `Hub.sql`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.collections.tables import RowDone
from holdfast.errors import HoldfastError, HubError, UsageError, from_wire
from holdfast.log.drafts import new_id
from holdfast.node.parts import JSON, PAGE, Part, decode, encode
from holdfast.transport.client import REQUEST_S, HubClient

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

Params = Sequence[Any] | Mapping[str, Any]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change of a batch.

    Attributes:
        status: ``stored``, ``deleted``, or ``rejected``.
        table, id: which row; empty where the change was none.
        version: counts the changes of the row; 0 where it was rejected.
        error: why it was rejected, or None.
    """

    status: str
    table: str = ""
    id: str = ""
    version: int = 0
    error: HoldfastError | None = None


class SqlRows(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement found.

    Attributes:
        columns: their names.
        rows: each as a list, in the order of the columns.
        truncated: False, or the limit at which the rows end: ``rows`` or ``bytes``.
    """

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool | str = False

    def objects(self) -> list[dict[str, Any]]:
        """Each row as a dict; of columns with the same name the last."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Tables(Part):
    """Rows for those who think in tables; a table appears with its first row.

    `key` is the field that is the primary key; where a new row lacks it, one is made. With a `msg_id` a change is
    carried out once, for ever.
    """

    _room = "/relay"

    def put(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """Adds a row of an agent, or replaces it; once it returns, the hub would not lose it."""
        return self._change("upsert", table, row, agent=agent, key=key, msg_id=msg_id)

    def insert(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """Adds a row.

        Raises:
            Conflict: it is there, with other fields.
        """
        return self._change("insert", table, row, agent=agent, key=key, msg_id=msg_id)

    def update(
        self, table: str, row: Mapping[str, Any], *, agent: str, key: str = "id", msg_id: str | None = None
    ) -> RowDone:
        """Changes the fields of a row that are given, its primary key among them.

        Raises:
            NotFound: there is no such row.
        """
        return self._change("update", table, row, agent=agent, key=key, msg_id=msg_id)

    def delete(self, table: str, id: str | int, *, agent: str, key: str = "id", msg_id: str | None = None) -> RowDone:
        """Takes a row away, if it is there; its history stays."""
        return self._change("delete", table, {key: id}, agent=agent, key=key, msg_id=msg_id)

    def batch(self, changes: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Carries out up to 10,000 changes in their order; a wrong one harms no other.

        Args:
            changes: dicts of what `put` takes: table, row, agent, key, msg_id; and ``operation``: upsert (if not
                said), insert, update or delete.

        Returns:
            A verdict for each.
        """
        answer = self._ask("POST", "batch", [_change(dict(each)) for each in changes])
        found: list[dict[str, Any]] = answer.json()["verdicts"]
        return [_verdict(each) for each in found]

    def find(
        self,
        table: str,
        *,
        filters: Mapping[str, Any] | None = None,
        agent: str | None = None,
        limit: int = 1000,
    ) -> list[dict[str, Any]]:
        """The first `limit` rows that match, in the order in which they were last written.

        Args:
            table: its name.
            filters: by field a value (equal), or operators by name: eq ne gt gte lt lte in contains exists.
            agent: only this agent's.
            limit: the most.

        Raises:
            UsageError: a filter is none.
        """
        asked = {"table": table, "filters": dict(filters or {}), "agent_id": agent}
        encode(asked)

        def pages(client: HubClient) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = []
            after = 0
            while len(rows) < limit:
                body = encode({**asked, "after": after, "limit": min(PAGE, limit - len(rows))})
                page = client.want("POST", "/relay/query", body=body, headers=JSON).json()
                rows += page["rows"]
                after = page.get("next")
                if after is None:
                    break
            return rows

        return self._hub.ask(lambda hub: pages(hub.client))

    def _change(self, operation: str, table: str, row: Mapping[str, Any], **fields: Any) -> RowDone:
        body = _change({"operation": operation, "table": table, "row": row, **fields})
        return decode(self._ask("POST", "immediate", body), RowDone)


def ask_sql(hub: Hub, statement: str, params: Params, limit: int, timeout: float | None) -> SqlRows:
    """What one SELECT finds; see `Hub.sql`."""
    if isinstance(params, str | bytes):
        raise UsageError(f"params are a list or a dict, got {params!r:.80}", hint="[value] for one")
    values = dict(params) if isinstance(params, Mapping) else list(params)
    asked = {"sql": statement, "params": values, "limit": limit, "timeout": timeout}
    body = encode(asked)
    patience = REQUEST_S + (timeout or 0)

    def want(client: HubClient) -> SqlRows:
        return decode(client.want("POST", "/relay/query", body=body, headers=JSON, timeout=patience), SqlRows)

    return hub.ask(lambda each: want(each.client))


def _change(given: dict[str, Any]) -> dict[str, Any]:
    """A change as the hub takes it."""
    row = given.pop("row", {})
    if not isinstance(row, Mapping):
        raise UsageError(f"a row is a dict, got {row!r:.80}", hint="its fields by name")
    out = {"agent_id": given.pop("agent", None), "data": dict(row), **given}
    key = given.get("key", "id")
    if given.get("operation", "upsert") in ("upsert", "insert") and row.get(key) is None:
        # Made here, before it is sent: a request that has to be repeated adds no second row.
        out["data"][key] = new_id("row")
    return {name: value for name, value in out.items() if value is not None}


def _verdict(given: dict[str, Any]) -> Verdict:
    error = from_wire({"error": given["error"]}) if "error" in given else None
    try:
        return msgspec.structs.replace(msgspec.convert({**given, "error": None}, Verdict), error=error)
    except msgspec.ValidationError as wrong:
        raise HubError(f"the hub's answer is not as agreed: {wrong}", hint="is it another version?") from wrong
