"""Pydantic AI's `ConversationStore`: conversations with their branches and forks, each message stored once.

    store = HoldfastConversationStore("./node", agent="laptop")
    conversation = await store.load("chat-1") or Conversation(conversation_id="chat-1")
    result = await agent.run("Hello", conversation=conversation)
    await store.save(result)

The one door to Pydantic AI.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.collections.typed import Collection, Item
from holdfast.errors import Conflict, MissingExtra, NotFound
from holdfast.integrations.place import Place, Where, segment, settled
from holdfast.query import EVERYTHING, where

try:
    from pydantic import TypeAdapter
    from pydantic_ai import DeferredToolRequests
    from pydantic_ai.conversation_store import (
        ConversationConflict,
        ConversationEntry,
        ConversationRecord,
        ConversationStore,
    )
    from pydantic_ai.messages import ModelMessagesTypeAdapter
    from pydantic_ai.usage import RunUsage
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("Pydantic AI is not installed", hint="pip install 'holdfast[pydantic-ai]'") from error

COLLECTION: Final = "pydantic-ai"
ENTRIES: Final = ".entries"
AT_ONCE_MAX: Final = 100
AT_ONCE_BYTES: Final = 512 << 10
"""So much goes into one commit with its record; of more, the record comes last."""
_USAGE: Final[Any] = TypeAdapter(RunUsage)
_DEFERRED: Final[Any] = TypeAdapter(DeferredToolRequests | None)


class Record(msgspec.Struct, kw_only=True):
    """A conversation's record: Pydantic AI's own JSON of it, and what it is found by."""

    scope: str | None
    record: dict[str, Any]


class Entry(msgspec.Struct, kw_only=True):
    """A message, the entry before it, and the conversation that it was first said in."""

    id: str
    of: str
    parent: str | None
    message: dict[str, Any]


class HoldfastConversationStore(ConversationStore):
    """Conversations in a node's log or at a hub. Of two who save at once, the second gets a `ConversationConflict`.

    A deleted conversation's messages stay in the log, also those that no other conversation shares: somebody may be
    forking from them. Erase what must be gone (docs/erasure.md). Every earlier record stays too: `history`.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = COLLECTION
    ) -> None:
        self._place = place = Place(where, agent=agent, shared=shared)
        self._records: Collection[Record] = place.collection(collection, Record, index=("scope",))
        self._entries: Collection[Entry] = place.collection(f"{collection}{ENTRIES}", Entry, index=("of",))

    # -- what the base class is made of ---------------------------------------------------------------------------

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """A conversation's record; None if there is none."""
        found = await settled(self._item, conversation_id)
        return None if found is None else _record(found.value)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The records of a scope, or all; the one that was saved last comes first."""
        condition = EVERYTHING if scope is None else where("scope") == scope
        found = await settled(lambda: [_record(item.value) for item in self._place.every(self._records, condition)])
        found.sort(key=lambda each: each.updated_at, reverse=True)
        return found[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Stores a record with the entries that it adds.

        Raises:
            ConversationConflict: the stored record is another than was expected, or an entry that it names is unknown.
        """
        await settled(self._write, record, list(new_entries), expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Deletes a record; the entries stay.

        Raises:
            ConversationConflict: the stored record is another than was expected.
        """
        await settled(self._delete, conversation_id, expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """An entry by its id.

        Raises:
            NotFound: there is none (a `LookupError`, which is what Pydantic AI asks for).
        """
        return _entry(await settled(self._entries.get, segment(entry_id)))

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries up to one, oldest first, or only the newest of them: what was said together is read together."""
        return await settled(self._history, head_id, limit)

    # -- what it has besides --------------------------------------------------------------------------------------

    async def history(self, conversation_id: str) -> list[ConversationRecord]:
        """A conversation's record as it was after each save, newest first: their `head_id` leads to what it held."""
        key = segment(conversation_id)
        return await settled(lambda: [_record(kept) for kept, _ in self._place.past(self._records, key)])

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self._place.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _item(self, conversation: str) -> Item[Record] | None:
        try:
            return self._records.item(segment(conversation))
        except NotFound as error:
            if error.code != NotFound.code:
                raise
            return None

    def _expected(self, conversation: str, revision: str | None) -> int:
        """The version of the record that must be current for it to be the one with this revision."""
        found = self._item(conversation)
        if (None if found is None else found.value.record["revision"]) != revision:
            raise ConversationConflict(conversation)
        return 0 if found is None else found.version

    def _write(self, record: ConversationRecord, new: list[ConversationEntry], expected: str | None) -> None:
        name = record.conversation_id
        version = self._expected(name, expected)
        if record.head_id is not None and record.head_id not in {each.id for each in new}:
            try:
                self._entries.get(segment(record.head_id))
            except NotFound as error:
                raise ConversationConflict(name) from error
        entries = [Entry(id=each.id, of=name, parent=each.parent_id, message=_plain(each)) for each in new]
        kept = Record(scope=record.scope, record=_told(record))
        small = len(entries) <= AT_ONCE_MAX and len(msgspec.json.encode(entries)) <= AT_ONCE_BYTES
        store: Any = self._place.at_once(self._records, self._entries)
        try:
            if store is None or not small:
                for entry in entries:
                    self._entries.put(segment(entry.id), entry)
                self._records.put(segment(name), kept, expect=version)
                return
            records: Any = self._records
            parts: Any = self._entries
            with store.batch() as batch:
                for entry in entries:
                    parts.into(batch).put(segment(entry.id), entry)
                records.into(batch).put(segment(name), kept, expect=version)
        except Conflict as error:
            raise ConversationConflict(name) from error

    def _delete(self, name: str, revision: str) -> None:
        version = self._expected(name, revision)
        try:
            self._records.delete(segment(name), expect=version)
        except (Conflict, NotFound) as error:
            raise ConversationConflict(name) from error

    def _history(self, head: str | None, limit: int | None) -> list[ConversationEntry]:
        held: dict[str, Entry] = {}
        found: list[ConversationEntry] = []
        while head is not None and (limit is None or len(found) < limit):
            entry = held.get(head)
            if entry is None:
                entry = self._entries.get(segment(head))
                if limit is None:
                    said = self._place.every(self._entries, where("of") == entry.of)
                    held |= {item.value.id: item.value for item in said}
            found.append(_entry(entry))
            head = entry.parent
        return found[::-1]


def _plain(entry: ConversationEntry) -> dict[str, Any]:
    plain: dict[str, Any] = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")[0]
    return plain


def _entry(kept: Entry) -> ConversationEntry:
    # Through JSON text, in which bytes are base64; among Python values they would have to be bytes.
    (message,) = ModelMessagesTypeAdapter.validate_json(msgspec.json.encode([kept.message]))
    return ConversationEntry(id=kept.id, parent_id=kept.parent, message=message)


def _told(record: ConversationRecord) -> dict[str, Any]:
    return {
        "conversation_id": record.conversation_id,
        "head_id": record.head_id,
        "usage": _USAGE.dump_python(record.usage, mode="json"),
        "deferred_tool_requests": _DEFERRED.dump_python(record.deferred_tool_requests, mode="json"),
        "scope": record.scope,
        "forked_from": record.forked_from,
        "forked_at": record.forked_at,
        "branches": record.branches,
        "revision": record.revision,
        "updated_at": record.updated_at.isoformat(),
        "format_version": record.format_version,
    }


def _record(kept: Record) -> ConversationRecord:
    told = kept.record
    return ConversationRecord(
        **{
            **told,
            "usage": _USAGE.validate_python(told["usage"]),
            "deferred_tool_requests": _DEFERRED.validate_json(msgspec.json.encode(told["deferred_tool_requests"])),
            "updated_at": datetime.fromisoformat(told["updated_at"]),
        }
    )
