"""`JournalStorage`: what is noted down, and never decided about: decisions, figures, and who said what to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from holdfast import clock as clocks
from holdfast.agents.notes import (
    COMMUNICATIONS,
    DECISIONS,
    KINDS,
    METRICS,
    SEARCHED,
    STAMPED,
    asked,
    sums,
    tagged,
    worded,
)
from holdfast.agents.rows import LIMIT
from holdfast.agents.shapes import blank, shaped
from holdfast.agents.storage import BaseStorage, Page
from holdfast.collections import Message
from holdfast.errors import HubUnavailable, UsageError
from holdfast.log.drafts import new_id
from holdfast.node.looking import When
from holdfast.query import Condition


class JournalStorage(BaseStorage):
    """An agent's decisions, figures and messages, always taken on this machine, whatever the hub does."""

    indexes: ClassVar[Mapping[str, Sequence[str]]] = {
        DECISIONS: ("decision_type", "related_task_id", "created_at"),
        METRICS: ("metric_name", "metric_type", "timestamp"),
        COMMUNICATIONS: ("from_agent", "to_agent", "related_task_id", "timestamp"),
    }
    words: ClassVar[Mapping[str, Sequence[str]]] = {DECISIONS: SEARCHED}

    def _write_local(self, table: str, data: dict[str, Any], operation: str) -> dict[str, Any]:
        if table not in KINDS:
            raise UsageError(f"there is no table {table!r:.80} of notes", hint=f"one of {', '.join(KINDS)}")
        if operation == "delete":
            return data
        return shaped(table, KINDS[table], {STAMPED[table]: clocks.iso(self.clock.now_ms()), **data})

    # -- decisions, figures -----------------------------------------------------------------------------------------

    async def log_decision(self, decision: Mapping[str, Any]) -> str:
        """Notes a decision with its reasons, and returns its id.

        Args:
            decision: `decision_type`, and as it is known reasoning, context, options_considered, chosen_option,
                confidence_score (0 to 1), related_task_id.
        """
        return await self._note(DECISIONS, "decision", decision)

    async def record_decision_outcome(
        self, decision_id: str, outcome: str, *, outcome_quality: float | None = None
    ) -> bool:
        """Says how a decision turned out: success, failure, or a word of your own; its quality from 0 to 1.

        Raises:
            NotFound: there is no such decision.
        """
        said: dict[str, Any] = {"id": decision_id, "outcome": outcome}
        said |= {} if outcome_quality is None else {"outcome_quality": outcome_quality}
        return await self.write_data(DECISIONS, said, "update")

    async def get_decisions(
        self,
        decision_type: str | None = None,
        *,
        related_task_id: str | None = None,
        since: When | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """Decisions, newest first.

        Args:
            decision_type, related_task_id, since: narrow it.
            limit, cursor: a page; the list's `cursor` leads to the next one.
        """
        fields = {"decision_type": decision_type, "related_task_id": related_task_id}
        return await self._noted(DECISIONS, asked(DECISIONS, fields, since, None), limit, cursor)

    async def search_decisions(self, text: str, *, limit: int = LIMIT, cursor: str | None = None) -> Page:
        """The decisions in whose reasoning, type, choice or outcome each of these words stands, newest first."""
        return await self._noted(DECISIONS, worded(text), limit, cursor)

    async def record_metric(
        self,
        metric_type: str,
        metric_name: str,
        value: float,
        unit: str | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> str:
        """Notes a figure as it is now, and returns the note's id."""
        row = {"metric_type": metric_type, "metric_name": metric_name, "value": value, "unit": unit}
        return await self._note(METRICS, "metric", {**row, "tags": dict(tags or {})})

    async def query_metrics(
        self,
        metric_name: str | None = None,
        *,
        tags: Mapping[str, Any] | None = None,
        since: When | None = None,
        until: When | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """Figures, newest first.

        Args:
            metric_name, tags: of this name, and with these tags.
            since, until: from one time to before another: seconds, ISO 8601, or datetimes.
            limit, cursor: a page; the list's `cursor` leads to the next one.
        """
        condition = asked(METRICS, {"metric_name": metric_name, **tagged(tags)}, since, until)
        return await self._noted(METRICS, condition, limit, cursor)

    async def aggregate_metrics(
        self,
        metric_name: str | None = None,
        *,
        by: str | None = None,
        tags: Mapping[str, Any] | None = None,
        since: When | None = None,
        until: When | None = None,
    ) -> list[dict[str, Any]]:
        """What figures add up to: count, sum, min, max, avg, p50, p95, p99.

        Args:
            metric_name, tags, since, until: which; see `query_metrics`.
            by: one sum for each metric_name, metric_type, unit, or value of this tag; None: one of all.
        """
        condition = asked(METRICS, {"metric_name": metric_name, **tagged(tags)}, since, until)
        rows = self.table(METRICS)
        return await self.in_thread(lambda: sums((row.value for row in rows.each(condition)), by))

    # -- messages -------------------------------------------------------------------------------------------------

    async def send_message(
        self,
        to_agent: str,
        content: Any,
        message_type: str = "message",
        *,
        task_id: str | None = None,
        priority: str = "normal",
    ) -> str:
        """Posts a message to an agent, on whatever machine, and returns its id once it is durable here."""
        post = self.store.post
        sent = await self.in_thread(post, content, to=to_agent, kind=message_type, task=task_id, priority=priority)
        return sent.id

    async def get_inbox(
        self, agent_id: str | None = None, *, since: When | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The newest messages to an agent, oldest of them first: everybody's through the hub.

        While the hub is away, those that were sent from this log.

        Args:
            agent_id: to whom; None: this storage's own agent.
            since: only later than this time.
            limit: the most.
        """
        to = agent_id or self.agent_id

        def look() -> list[Message]:
            try:
                return self.store.messages(to=to, since=since, limit=limit)
            except HubUnavailable:
                return self.store.messages(to=to, since=since, limit=limit, agent=self.agent_id)

        return [_told(each) for each in await self.in_thread(look)]

    async def record_comm(self, interaction: Mapping[str, Any]) -> str:
        """Notes what one agent said to another, without sending it; returns the note's id.

        Args:
            interaction: `from_agent`, `to_agent`, and as it is known message_type, content, related_task_id.
        """
        return await self._note(COMMUNICATIONS, "comm", interaction)

    async def get_comms(
        self,
        from_agent: str | None = None,
        to_agent: str | None = None,
        *,
        related_task_id: str | None = None,
        limit: int = LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """What was noted by `record_comm`, newest first."""
        fields = {"from_agent": from_agent, "to_agent": to_agent, "related_task_id": related_task_id}
        return await self._noted(COMMUNICATIONS, asked(COMMUNICATIONS, fields, None, None), limit, cursor)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _note(self, table: str, prefix: str, row: Mapping[str, Any]) -> str:
        if not isinstance(row, Mapping):
            raise UsageError(f"a row of {table} is a dict, got {row!r:.80}", hint="its fields by name")
        return await self.insert(table, {**row, "id": row.get("id") or new_id(prefix)})

    async def _noted(self, table: str, condition: Condition, limit: int, cursor: str | None) -> Page:
        found = await self.find(table, condition, order=f"-{STAMPED[table]}", limit=limit, after=cursor)
        return Page(({**_BLANK[table], **row} for row in found), found.cursor)


def _told(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "from_agent": message.agent,
        "to_agent": message.to,
        "message_type": message.kind,
        "content": message.body,
        "priority": message.priority,
        "task_id": message.task,
        "timestamp": clocks.iso(round(message.time * 1000)),
    }


_BLANK: Final = {table: blank(kind) for table, kind in KINDS.items()}
