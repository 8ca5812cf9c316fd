"""One message by its id, and what became of it: as the hub knows it, else as this machine does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast import codec
from holdfast.collections.delivery import (
    DELIVERED,
    STORED,
    Delivery,
    Events,
    Reader,
    reader_of,
    state_of,
    tab_at,
)
from holdfast.collections.mailbox import in_box, tabs_of
from holdfast.collections.messages import Message, expiry_ms, needs_you
from holdfast.errors import Conflict, HubError, HubUnavailable, NotFound
from holdfast.node.inbox import Mail, letter_of, only, readable
from holdfast.node.local_mail import Letter, LocalMail
from holdfast.wire import PAGE_MAX

if TYPE_CHECKING:
    from holdfast.node.hub import Hub
    from holdfast.node.store import Store


@contextlib.contextmanager
def _beside(store: Store, box: str | None = None) -> Iterator[LocalMail]:
    local = LocalMail(store._directory, box)
    try:
        yield local
    finally:
        local.close()


def found(store: Store, msg: str, sender: str | None) -> Mail:
    """The message; see `Store.mail`."""
    with _beside(store) as local:
        letters = local.named(msg, sender)
    away: HubUnavailable | None = None
    if not letters and store.hubs:
        try:
            letters = [_asked(store, msg, sender)]
        except HubUnavailable as error:
            away = error
            kept = store._reader().cache.mail_named(msg)
            letters = only(msgspec.json.decode(each, type=codec.ready(Letter)) for each in kept)
            letters = [each for each in letters if sender in (None, each.message.agent)]
    if len(letters) > 1:
        senders = sorted({each.message.agent for each in letters})
        raise Conflict(f"{len(senders)} senders have a message {msg!r:.80}: {', '.join(senders)}", hint="sender=")
    if letters:
        return Mail(store, letters[0].message)
    if away is not None:
        raise away
    raise NotFound(f"there is no message {msg!r:.80}", hint="holdfast inbox shows what there is")


def _path(msg: str) -> str:
    from holdfast.node.parts import name_in_path

    return f"/v1/messages/{name_in_path(msg)}"


def _asked(store: Store, msg: str, sender: str | None) -> Letter:
    def ask(hub: Hub) -> Letter:
        shown = hub.client.want("GET", _path(msg), query={"sender": sender}).json()
        if not readable(shown):
            raise NotFound(f"the body of message {msg!r:.80} is {shown['missing']}", hint="ask its sender")
        return letter_of(hub, shown)

    return store._reader().hub.ask(ask)


def listed(store: Store, box: str, view: str, limit: int) -> list[tuple[Message, str]]:
    """The newest messages of an inbox in one view (`mailbox.VIEWS`), oldest of them first, each with its tab.

    Raises:
        HubUnavailable: a hub is configured and does not answer.
    """
    if not store.hubs:
        return _listed_beside(store, box, view, limit)

    def pages(hub: Hub) -> list[tuple[Message, str]]:
        out: list[tuple[Message, str]] = []
        after = None
        while len(out) < limit:
            query = {"for": box, "state": view, "after": after, "limit": min(PAGE_MAX, limit - len(out))}
            page = hub.client.want("GET", "/v1/inbox", query=query).json()
            out += [(letter_of(hub, each).message, each["state"]) for each in page["mail"] if readable(each)]
            after = page["next"]
            if after is None:
                break
        return out[::-1]

    return store._reader().hub.ask(pages)


def _listed_beside(store: Store, box: str, view: str, limit: int) -> list[tuple[Message, str]]:
    tabs, only_needing = tabs_of(view)
    now = store._directory.wall.now_ms()
    out: list[tuple[Message, str]] = []
    with _beside(store, box) as local:
        while found := local.pull():
            for message in (each.message for each in found):
                said = {who: Events(acts).reading for who, acts in local.acts(message.id, message.agent).items()}
                withdrawn = message.agent in said and said[message.agent].is_withdrawn
                tab = tab_at(in_box(box, said), withdrawn, expiry_ms(message.expires_at), now)
                if tab in tabs and (not only_needing or needs_you(message.kind, message.priority)):
                    out.append((message, tab))
    out.sort(key=lambda each: (each[0].time, each[0].agent, each[0].seq))
    return out[-limit:]


def delivery(store: Store, msg: str, sender: str | None) -> Delivery:
    """What became of it; see `Store.delivery`."""
    with _beside(store) as local:
        letters = local.named(msg, sender)
        # Of several with one id, the one that this agent sent is meant.
        mine = [each for each in letters if each.message.agent == store.agent] or letters
        letter = mine[0] if mine else None
        of = letter.message.agent if letter is not None else sender
        said = {who: Events(acts) for who, acts in local.acts(msg, of).items()} if of is not None else {}
    offline = False
    if store.hubs:
        try:
            return _merged(_told(store, msg, of), said)
        except NotFound:
            if letter is None:
                raise
        except HubError as error:
            if not error.retryable or letter is None:
                raise
            offline = True
    if letter is None:
        raise NotFound(f"there is no message {msg!r:.80}", hint="holdfast sent lists what was sent")
    message = letter.message
    now = store._directory.wall.now_ms()
    readings = {who: events.reading for who, events in said.items()}
    shipped = bool(store.hubs) and message.agent == store.agent and _is_shipped(store, message.seq)
    return Delivery(
        msg_id=msg,
        sender=message.agent,
        to=message.to,
        state=state_of(readings, message.agent, DELIVERED if shipped else STORED, message.expired(now)),
        readers=_readers(said),
        offline=offline,
    )


def _is_shipped(store: Store, seq: int) -> bool:
    log = store._log
    return seq <= log.corpus.head(log.branch.id).seq - store.outbox_depth


def _readers(said: dict[str, Events]) -> dict[str, Reader]:
    spoke = {who: each for who, each in said.items() if each.reading.rank or each.reading.place[0]}
    return {who: reader_of(each.reading, each.result) for who, each in spoke.items()}


def _told(store: Store, msg: str, sender: str | None) -> Delivery:
    path = f"{_path(msg)}/delivery"
    found: Any = store._reader().hub.ask(lambda hub: hub.client.want("GET", path, query={"sender": sender}).json())
    return Delivery(
        msg_id=found["msg_id"],
        sender=found["sender"],
        to=found["recipient"],
        state=found["state"],
        readers={who: msgspec.convert(each, Reader) for who, each in found["readers"].items()},
    )


def _merged(told: Delivery, said: dict[str, Events]) -> Delivery:
    """What the hub knows, with what was said here and has perhaps not come to it."""
    here = {who: each for who, each in _readers(said).items() if who not in told.readers}
    return msgspec.structs.replace(told, readers={**here, **told.readers}) if here else told
