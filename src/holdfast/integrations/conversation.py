"""What the adapters for conversations share: an append-only list of entries under a name, with a state beside it.

    chats = Conversations(Place("./node", agent="laptop"), "chats")
    chats.append(("chat-1",), [{"role": "user", "content": "hi"}])
    chats.load(("chat-1",))

A conversation is a *head* and *parts*. A part holds some entries and never changes. The head says which parts make the
conversation, and its version is the conversation's revision: whoever writes expects the one that he has read, so of
two who write at once the second looks again, and no entry is lost. A write is done when the head is put. A part that no
head names is a write that came to nothing, and nobody sees it. So every earlier state can be read by its head (`at=`),
and one write at a time is all that is asked of the place: a log, or a hub that decides.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.collections.typed import Collection
from holdfast.errors import Conflict, IntegrityError, NotFound
from holdfast.integrations.entries import (
    OURS,
    Conversation,
    Entry,
    Head,
    Name,
    Part,
    Placed,
    checked,
    copied,
    life_of,
    new_life,
    parted,
    path_of,
    told,
    unknown,
)
from holdfast.integrations.place import Place
from holdfast.query import EVERYTHING, Condition, where

Change: TypeAlias = Callable[[dict[str, Any], list[Any]], dict[str, Any]]
"""Makes the new state of the old one and the entries that are added; may be called several times."""

Entries: TypeAlias = list[Entry]
Listed: TypeAlias = list[Conversation]
Loaded: TypeAlias = list[Any]
"""In the class, `list` is the method."""

PARTS: Final = ".parts"
AT_ONCE_MAX: Final = 12
"""So many parts go into one commit with their head; of more, the head comes last."""
AT_HAND_MAX: Final = 256
"""So many values of one's own log are read one by one, without an index that may have to be brought up to date."""
SPANS_MAX: Final = 64
"""A head with more runs of parts than this is written anew as one run."""
_PAGE: Final = 200
_HISTORY_MAX: Final = 100_000


class Conversations:
    """The conversations of one name at a place. Safe to share among threads; any number of processes may write.

    Args:
        place: where they are kept.
        name: of the collection; what they consist of lies beside it in ``<name>.parts``.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.name = name
        self._lock = threading.Lock()  # guards _last
        self._last = 0
        self._heads: Collection[Head] = place.collection(name, Head, index=("below",))
        self._parts: Collection[Part] = place.collection(f"{name}{PARTS}", Part, index=("of", "ids"))

    # -- reading --------------------------------------------------------------------------------------------------

    def get(self, name: Name, *, at: Any = None, agent: str | None = None) -> Conversation | None:
        """What is known of a conversation, without its entries; None if there is none.

        Args:
            name: which.
            at: a revision, or a time (seconds, ISO 8601 text, datetime): as it stood then.
            agent: another agent's own; None: of this place.

        Raises:
            HubUnavailable: it is asked of a hub, which does not answer.
        """
        found = self._head(name, at, agent)
        return None if found is None else told(*found)

    def load(self, name: Name, *, limit: int | None = None, at: Any = None, agent: str | None = None) -> Loaded | None:
        """The entries of a conversation, oldest first; None if there is none.

        Args:
            name, at, agent: see `get`.
            limit: only the newest so many.

        Raises:
            IntegrityError: a part of it is not there any more.
            Erased: a part of it was erased.
        """
        found = self._head(name, at, agent)
        return None if found is None else [entry for entry, _ in self._entries(name, found[0], limit, agent)]

    def list(self, below: Name = (), *, deep: bool = False) -> Listed:
        """The conversations directly below a name, or (`deep`) all of them, in the order in which they began."""
        path = path_of(below)
        condition: Condition = where("below") == path
        if deep:
            condition = condition | where("below").starts(f"{path}/") if path else EVERYTHING
        return [told(item.value, item.version) for item in self.place.every(self._heads, condition)]

    def at_hand(self, name: Name) -> bool:
        """Whether a conversation, or that there is none, is read so quickly that it needs no thread."""
        if self.place.at_once(self._heads, self._parts) is None:
            return False
        found = self._head(name, None, None)
        return found is None or (found[0].count <= AT_HAND_MAX and found[0].next <= AT_HAND_MAX)

    def list_at_hand(self, below: Name) -> Listed | None:
        """The conversations directly below a name in the order of their names, if that needs no thread; else None."""
        store = self.place.at_once(self._heads, self._parts)
        if store is None:
            return None
        prefix = f"{path_of(below)}/"
        keys = store.keys(prefix, collection=self._heads.name, limit=AT_HAND_MAX + 1)
        if len(keys) > AT_HAND_MAX:
            return None
        rows = [self._heads._live(key, None) for key in keys if "/" not in key[len(prefix) :]]
        return [told(self._heads._value(row), row.version) for row in rows if row is not None]

    def history(self, name: Name, *, limit: int = 1000) -> Listed:
        """A conversation as it stood after each change, newest first; its deletions are left out."""
        return [told(head, version) for head, version in self.place.past(self._heads, path_of(name), limit)]

    # -- writing --------------------------------------------------------------------------------------------------

    def append(
        self,
        name: Name,
        entries: Sequence[Any],
        *,
        expect: int | None = None,
        change: Change | None = None,
        ids: Sequence[str | None] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """Adds entries at the end, all or none; the conversation begins with its first.

        Args:
            name: of which conversation.
            entries: JSON values.
            expect: the revision that must be current (0: there is none); None: whichever is.
            change: makes the new state; with no entries, it alone changes.
            ids: what each entry is known by (None: by nothing); an entry whose id is there already is left out.
            origin: of a conversation that so begins, what it was forked from.

        Raises:
            Conflict: somebody was faster than `expect`.
            UsageError: what JSON cannot say; nothing is written.
        """
        given = checked(entries, ids)
        placed: Placed | None = None
        while True:
            head, version = self._head_to_write(name, expect)
            fresh = unknown(given, self._known(name, head, given) if version else set())
            if version and given and not fresh:
                return told(head, version)  # all of it is there: a batch that was sent twice
            made = self._changed(head, fresh, change)
            if not version and origin is not None:
                made.origin = dict(origin)
            try:
                done = self._write(name, made, version, fresh, placed)
            except _Faster as faster:
                placed = faster.placed
                if expect is not None:
                    raise faster.error from None
                continue
            if len(made.spans) > SPANS_MAX:
                self._in_one_run(name)
            return done

    def pop(self, name: Name) -> Any:
        """Takes the newest entry away and returns it; None if there is none. What it was can still be read (`at=`)."""
        while True:
            found = self._head(name, None, None)
            if found is None or not found[0].count:
                return None
            head, version = found
            number, keep = list(head.numbers())[-1]
            held = self._part(name, head, number, None).kept(keep)
            made = self._changed(head, [], None)
            made.shorten(len(held))
            with contextlib.suppress(Conflict):
                self._heads.put(path_of(name), made, expect=version)
                return held[-1][0]

    def replace(
        self,
        name: Name,
        entries: Sequence[Any],
        *,
        expect: int | None = None,
        change: Change | None = None,
        ids: Sequence[str | None] | None = None,
        forget: bool = False,
    ) -> Conversation:
        """Puts entries in the place of all that there are, at once.

        Args:
            name, entries, expect, change, ids: see `append`.
            forget: delete the earlier entries; else they stay where its past is read from (`at=`).

        Raises:
            Conflict: somebody was faster than `expect`.
        """
        given = unknown(checked(entries, ids), set())
        while True:
            head, version = self._head_to_write(name, expect)
            made = self._changed(head, given, change)
            made.life, made.spans, made.next, made.count = new_life(), [], 0, 0
            try:
                done = self._write(name, made, version, given, None)
            except _Faster as faster:
                if expect is not None:
                    raise faster.error from None
                continue
            if forget and version:
                self._forget(path_of(name), {head.life})
            return done

    def delete(self, name: Name, *, expect: int | None = None, below: bool = True) -> bool:
        """Takes a conversation away, and (`below`) those below it; False if there was none of them.

        What it held stays in the history of its keys until it is erased (docs/erasure.md).

        Raises:
            Conflict: it is not at the revision that was expected.
        """
        path = path_of(name)
        there = self._head(name, None, None)
        if expect is not None and (there is None or there[1] != expect):
            raise Conflict(f"the conversation {'/'.join(name)} is not at revision {expect}", hint="look again")
        under = [each.name for each in self.list(name, deep=True)] if below else []
        if there is None and not under:
            return False
        store = self.place.at_once(self._heads, self._parts)
        if store is None:
            self._delete_each([*([name] if there else []), *under], expect)
            return True
        with store.batch() as batch:
            if there is not None:
                batch.delete(path, collection=self._heads.name, expect=expect)
            if below:
                batch.delete(f"{path}/", prefix=True, collection=self._heads.name)
            batch.delete(f"{path}/{'' if below else OURS}", prefix=True, collection=self._parts.name)
        return True

    def fork(
        self, name: Name, target: Name, *, at: Any = None, agent: str | None = None, most: int | None = None
    ) -> Conversation:
        """Begins a conversation with the entries and the state of another; from then on each goes its own way.

        Args:
            name: of the one to begin with.
            target: of the new one.
            at: a revision of it, or a time; None: as it is now.
            agent: another agent's own: what was begun on another machine is so continued on this one.
            most: only its first so many entries; None: all.

        Raises:
            NotFound: there is nothing to fork.
            Conflict: there is a conversation of the new name.
        """
        found = self._head(name, at, agent)
        if found is None:
            whose = "" if agent is None else f" of {agent}"
            raise NotFound(f"there is no conversation {'/'.join(name)}{whose}", hint="list() shows what there is")
        head, revision = found
        pairs = self._entries(name, head, None, agent)[:most]
        origin = {"name": list(name), "revision": revision, "agent": agent or self.place.whose}
        return self.append(
            target,
            [entry for entry, _ in pairs],
            ids=[mark for _, mark in pairs],
            expect=0,
            change=lambda _, __: head.state,
            origin=origin,
        )

    # -- inside: heads --------------------------------------------------------------------------------------------

    def _whose(self, agent: str | None) -> str | None:
        return self.place.whose if agent is None and self.place.shared else agent

    def _of(self, agent: str | None) -> tuple[Collection[Head], Collection[Part]]:
        if agent is None:
            return self._heads, self._parts
        heads = self.place.of(agent, self.name, Head, index=("below",))
        return heads, self.place.of(agent, f"{self.name}{PARTS}", Part, index=("of", "ids"))

    def _head(self, name: Name, at: Any, agent: str | None) -> tuple[Head, int] | None:
        heads = self._of(agent)[0]
        row = heads._live(path_of(name), at, self._whose(agent))
        return None if row is None else (heads._value(row), row.version)

    def _head_to_write(self, name: Name, expect: int | None) -> tuple[Head, int]:
        found = self._head(name, None, None)
        version = 0 if found is None else found[1]
        if expect is not None and expect != version:
            raise Conflict(
                f"the conversation {'/'.join(name)} is at revision {version}, you expected {expect}",
                hint="load it again and decide",
                current_version=version,
            )
        if found is not None:
            return found
        now = self._now(0)
        return Head(name=list(name), below=path_of(name[:-1]), life=new_life(), created=now, updated=now), 0

    def _changed(self, head: Head, fresh: Sequence[Entry], change: Change | None) -> Head:
        now = self._now(head.updated)
        state = head.state if change is None else change(copied(head.state), [entry for entry, _ in fresh])
        return msgspec.structs.replace(head, spans=list(head.spans), updated=now, state=state)

    def _now(self, before: int) -> int:
        """The time in ms, later with every write here, so that what was written last can be told by it."""
        with self._lock:
            self._last = max(self._heads._backing.now_ms(), before, self._last + 1)
            return self._last

    def _delete_each(self, names: Sequence[Name], expect: int | None) -> None:
        """Where there is no commit for all of it: each head first, for then its parts are nobody's."""
        for number, name in enumerate(names):
            path = path_of(name)
            lives = {head.life for head, _ in self.place.past(self._heads, path, _HISTORY_MAX)}
            with contextlib.suppress(NotFound):
                self._heads.delete(path, expect=None if number else expect)
            self._forget(path, lives)

    def _forget(self, path: str, lives: set[str]) -> None:
        """Deletes the parts of lives that are over."""
        store = self.place.at_once(self._parts)
        for life in lives:
            of = life_of(path, life)
            if store is not None:
                store.delete(f"{of}/", prefix=True, collection=self._parts.name)
                continue
            for item in list(self.place.every(self._parts, where("of") == of)):
                with contextlib.suppress(NotFound):
                    self._parts.delete(item.key)

    # -- inside: parts --------------------------------------------------------------------------------------------

    def _write(
        self, name: Name, made: Head, version: int, fresh: Sequence[Entry], placed: Placed | None
    ) -> Conversation:
        """Puts what is added, and the head that names it.

        Raises:
            _Faster: the head was another by then; the parts may be there, and do for the next attempt.
        """
        path = path_of(name)
        of = life_of(path, made.life)
        parts = parted(of, fresh)
        store = self.place.at_once(self._heads, self._parts)
        try:
            if store is not None and len(parts) <= AT_ONCE_MAX:
                first = made.next
                made.extend(first, first + len(parts) - 1, len(fresh))
                with store.batch() as batch:
                    for number, part in enumerate(parts, first):
                        part.number = number
                        _into(batch, self._parts, f"{of}/{number:08}", part, None)
                    _into(batch, self._heads, path, made, version)
                return told(made, batch.versions[-1].version)
            if placed is None or (placed.of, placed.entries) != (of, list(fresh)):
                placed = self._place(of, parts, made.next, list(fresh))
            made.extend(placed.first, placed.last, len(fresh))
            return told(made, self._heads.put(path, made, expect=version).version)
        except Conflict as error:
            raise _Faster(error, placed) from error

    def _place(self, of: str, parts: Sequence[Part], first: int, fresh: Entries) -> Placed:
        """Puts parts where nothing is yet: a number that is taken is a write's under way, or one's come to nothing."""
        number = first
        while number < first + len(parts):
            part = parts[number - first]
            part.number = number
            try:
                self._parts.put(f"{of}/{number:08}", part, expect=0)
                number += 1
            except Conflict:
                first = number = number + 1
        return Placed(of, first, first + len(parts) - 1, fresh)

    def _known(self, name: Name, head: Head, given: Sequence[Entry]) -> set[str]:
        """Which ids of these entries the conversation has."""
        asked = list(dict.fromkeys(mark for _, mark in given if mark))
        if not asked:
            return set()
        of, found = life_of(path_of(name), head.life), set[str]()
        keeps = dict(head.numbers())
        for first in range(0, len(asked), _PAGE):
            some = where("ids").is_in(asked[first : first + _PAGE]) & (where("of") == of)
            for item in self.place.every(self._parts, some):
                if item.value.number in keeps:
                    found.update(mark for _, mark in item.value.kept(keeps[item.value.number]))
        return found

    def _entries(self, name: Name, head: Head, limit: int | None, agent: str | None) -> Entries:
        if limit is not None and limit <= 0:
            return []
        few = agent is None and head.next <= AT_HAND_MAX and self.place.at_once(self._heads, self._parts) is not None
        if not few and (limit is None or limit >= head.count):
            condition = where("of") == life_of(path_of(name), head.life)
            held = {item.value.number: item.value for item in self.place.every(self._of(agent)[1], condition, agent)}
            return [
                pair
                for number, keep in head.numbers()
                for pair in (held.get(number) or self._part(name, head, number, agent)).kept(keep)
            ]
        newest: Entries = []
        for number, keep in reversed(list(head.numbers())):
            newest = self._part(name, head, number, agent).kept(keep) + newest
            if limit is not None and len(newest) >= limit:
                return newest[-limit:]
        return newest

    def _part(self, name: Name, head: Head, number: int, agent: str | None) -> Part:
        """One part, by its key. It never changes, so its first version is it, also once it is deleted."""
        key = f"{life_of(path_of(name), head.life)}/{number:08}"
        try:
            return self._of(agent)[1].get(key, at=1, agent=self._whose(agent))
        except NotFound as error:
            if error.code != NotFound.code or error.retryable:
                raise  # it was erased, or is elsewhere
            raise IntegrityError(
                f"part {number} of the conversation {'/'.join(name)} is gone",
                hint="holdfast scan; a backup may have it",
            ) from error

    def _in_one_run(self, name: Name) -> None:
        """Writes a conversation anew that was so often written by two at once, or popped, that its head grew long."""
        found = self._head(name, None, None)
        if found is None:
            return
        pairs = self._entries(name, found[0], None, None)
        entries, ids = [entry for entry, _ in pairs], [mark for _, mark in pairs]
        with contextlib.suppress(Conflict):  # the next who appends will do it
            self.replace(name, entries, ids=ids, expect=found[1])


class _Faster(Exception):
    """Somebody else's write came first; with what of one's own is there already."""

    def __init__(self, error: Conflict, placed: Placed | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.placed = placed


def _into(batch: Any, collection: Any, key: str, value: Head | Part, expect: int | None) -> None:
    collection.into(batch).put(key, value, expect=expect)
