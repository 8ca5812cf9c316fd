"""What is next to a message in the list that somebody came from."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.collections import mail_lists
from holdfast.collections.mailbox import Mail, named
from holdfast.errors import HoldfastError
from holdfast.hub.ui.messages_filters import filters_of, query_of, sought_of
from holdfast.hub.ui.messages_rows import message_url
from holdfast.hub.ui.pages import MessagesAt
from holdfast.hub.ui.routes import Ask

SEARCHED_MAX: Final = 200
"""Hits above a message that are looked through for the one next to it."""


class Neighbours(msgspec.Struct):
    """The addresses of what is newer and older in the list, empty where there is nothing, and of the list itself."""

    newer: str
    older: str
    back: str


def of_list(asked: MessagesAt) -> MessagesAt:
    """The list of an address that names one message of it."""
    return MessagesAt(**{name: getattr(asked, name) for name in MessagesAt.__struct_fields__})


def neighbours(ask: Ask, asked: MessagesAt, pos: int) -> Neighbours:
    """What is before and behind a position in a list; read from the corpus, so for threads.

    Args:
        ask: who looks.
        asked: for which list.
        pos: of the message; it need not be in the list any more.
    """
    query = query_of(asked)
    back = f"/messages?{query}" if query else "/messages"
    corpus = ask.core.corpus
    try:
        filters = filters_of(asked)
        sought = sought_of(ask.core, ask.principal, filters)
        if filters.words:
            older = [mail for mail, _ in mail_lists.searched(corpus, sought, filters.words, pos, 1).rows]
            above = msgspec.structs.replace(sought, since=max(sought.since, pos))
            found = mail_lists.searched(corpus, above, filters.words, 1 << 62, SEARCHED_MAX)
            # From the newest down: where that ended before the message, what is next to it is not known.
            newer = [found.rows[-1][0]] if found.rows and found.next is None else []
        else:
            older = [mail for mail, _ in mail_lists.listed(corpus, sought, pos, 1).rows]
            one = mail_lists.above(corpus, sought, pos)
            newer = [] if one is None else [one]
    except HoldfastError:  # a list that is not for him, or is none
        return Neighbours("", "", back)
    return Neighbours(_address(ask, newer, query), _address(ask, older, query), back)


def _address(ask: Ask, found: list[Mail], query: str) -> str:
    if not found:
        return ""
    mail = found[0]
    twice = len(named(ask.core.corpus, mail.msg)) > 1
    return message_url(mail.msg, mail.sender, query, named_twice=twice)
