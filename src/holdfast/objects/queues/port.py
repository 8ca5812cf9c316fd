"""The port of all queues: messages that one worker at a time has, as Azure Queue Storage does it. Its laws, once.

1. **At least once.** A message that `send` returned is received until somebody deletes it, its time to live ends, or it
   is a dead letter. Whoever works on it may see it again: make the work repeatable.
2. **One at a time.** Received, a message is invisible to all others until its visibility ends; `update` prolongs it.
3. **Receipts.** Receiving and `update` give the message a new receipt, and only the newest one counts: whoever comes
   with an older one gets `ObjectConflict`, and the message stays with whoever has it now.
4. **Dead letters.** A message that was received `max_dequeues` times and is due again goes to ``<queue>-poison``
   instead, with its content; that queue has no dead letters of its own. Nothing is lost on the way; where a store
   cannot move in one step (Azure), a crash in between leaves it in both.
5. **Content** is text or bytes, and comes back as what it was. At most 64 KiB as written: 65,536 bytes of UTF-8, or
   49,146 bytes of binary. Text that XML cannot carry counts as binary.
6. **Order** is roughly that of sending; do not rely on it.
7. **Names** are told apart by capital letters too; the store maps what Azure does not take, one to one.
8. **Any thread** may use a store at any time; so may a forked child, with connections of its own.

`holdfast.testing.queues` has these laws as tests.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import abstractmethod
from datetime import datetime
from typing import Any, Final

import msgspec

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageError, StorageRefused
from holdfast.objects.place import Place
from holdfast.objects.tables.keys import check_name

BODY_BYTES_MAX: Final = 64 << 10
VISIBILITY_S: Final = 30
TTL_S: Final = 7 * 86_400
SECONDS_MAX: Final = 7 * 86_400
RECEIVE_MAX: Final = 32
DEQUEUES_MAX: Final = 5
"""How often a message is tried, as Azure Functions does it."""
POISON: Final = "-poison"
# What XML 1.0 changes or has no place for. The space at either end is there for those who trim it.
_NOT_XML: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s\\Z|^\\Z")
_TEXT_MARK: Final = "hf64s:"
_BYTES_MARK: Final = "hf64b:"


class QueueMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a queue, as it was when it was sent, received, peeked at or updated."""

    id: str
    content: str | bytes
    receipt: str = ""
    """What `delete` and `update` want; empty where somebody only peeked."""
    dequeue_count: int = 0
    """How often it was received, this time included."""
    inserted: datetime | None = None
    expires: datetime | None = None
    """When it is gone; None: never."""
    visible: datetime | None = None
    """When it can be received again; None: not known."""

    @property
    def pop_receipt(self) -> str:
        """The receipt, by Azure's name."""
        return self.receipt

    def json(self) -> Any:
        """The content, read as JSON.

        Raises:
            StorageError: it is none.
        """
        try:
            return msgspec.json.decode(self.content)
        except msgspec.MsgspecError as error:
            raise StorageError(f"the message {self.id} holds no JSON: {error}") from error


class QueueStore(Place):
    """Queues of messages in one place. The laws are at the head of this module.

    Args:
        max_dequeues: how often a message is given out before it is a dead letter; None: for ever.
    """

    def __init__(self, *, max_dequeues: int | None = DEQUEUES_MAX) -> None:
        if max_dequeues is not None and max_dequeues < 1:
            raise StorageRefused(f"max_dequeues is at least 1, not {max_dequeues!r}")
        self.max_dequeues = max_dequeues

    @abstractmethod
    def create_queue(self, queue: str) -> bool:
        """Makes a queue; False if there was one of this name.

        Raises:
            StorageRefused: not a queue's name.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def delete_queue(self, queue: str) -> bool:
        """Removes a queue with all that is in it; False if there was none."""

    @abstractmethod
    def list_queues(self) -> list[str]:
        """The names of all queues, in order."""

    @abstractmethod
    def send(self, queue: str, content: str | bytes, *, ttl: int | None = TTL_S, delay: int = 0) -> QueueMessage:
        """Adds a message; when it returns, the message is there.

        Args:
            queue: its name.
            content: text or bytes.
            ttl: seconds until it is gone; None: never.
            delay: seconds until it can be received, less than `ttl`, at most seven days.

        Raises:
            ObjectNotFound: there is no such queue.
            StorageRefused: too large, or times that cannot be.
            StorageUnavailable: no answer; it may be there or not.
        """

    @abstractmethod
    def receive(self, queue: str, *, most: int = 1, visibility: int = VISIBILITY_S) -> list[QueueMessage]:
        """Takes messages to work on, and hides them from others; empty if none is due.

        Args:
            queue: its name.
            most: at most so many, up to 32.
            visibility: seconds for which they are hidden, from 1 to seven days.

        Raises:
            ObjectNotFound: there is no such queue.
            StorageRefused: numbers that cannot be.
            StorageUnavailable: no answer; some may be hidden for that time.
        """

    @abstractmethod
    def peek(self, queue: str, *, most: int = 1) -> list[QueueMessage]:
        """Looks at messages that are due, and leaves them so; up to 32.

        Raises:
            ObjectNotFound: there is no such queue.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def update(
        self, queue: str, message: QueueMessage, *, visibility: int = VISIBILITY_S, content: str | bytes | None = None
    ) -> QueueMessage:
        """Keeps a received message for longer, or gives it back; and may change its content.

        Args:
            queue: its name.
            message: as `receive`, `send` or `update` gave it.
            visibility: seconds from now for which it is hidden; 0: it is due at once.
            content: in place of its own; None: as it is.

        Returns:
            The message with its new receipt; the old one counts no more.

        Raises:
            ObjectConflict: somebody else has received it since, or it is gone.
            StorageRefused: too large, or a time that cannot be.
            StorageUnavailable: no answer; whether the receipt counts is not known.
        """

    @abstractmethod
    def delete(self, queue: str, message: QueueMessage) -> bool:
        """Ends a message: its work is done; False if it is gone already.

        Raises:
            ObjectConflict: somebody else has received it since: it is theirs.
            StorageUnavailable: no answer; it may be gone or not.
        """

    @abstractmethod
    def count(self, queue: str) -> int:
        """How many messages there are, hidden ones too. With others at work it is near enough.

        Raises:
            ObjectNotFound: there is no such queue.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def clear(self, queue: str) -> None:
        """Removes all messages.

        Raises:
            ObjectNotFound: there is no such queue.
            StorageUnavailable: no answer; some may be gone.
        """

    def _look(self) -> str | None:
        self.list_queues()
        return None

    def _tries(self, queue: str) -> int | None:
        """How often a message of this queue is given out; None: for ever."""
        return None if queue.endswith(POISON) else self.max_dequeues


def check_queue(queue: object) -> str:
    """The name itself, if it can be a queue's, and its dead letters' too.

    Raises:
        StorageRefused: it cannot.
    """
    name = check_name(queue, "queue")
    if not name.endswith(POISON):
        check_name(name + POISON, "queue")
    return name


def check_seconds(seconds: object, what: str, least: int) -> int:
    """The seconds themselves, if they can be.

    Raises:
        StorageRefused: not a whole number, too few or more than seven days.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not least <= seconds <= SECONDS_MAX:
        raise StorageRefused(f"{what} is {least} to {SECONDS_MAX} whole seconds, not {seconds!r:.40}")
    return seconds


def check_times(ttl: int | None, delay: int) -> None:
    """Whether a message can live and wait so long.

    Raises:
        StorageRefused: it cannot.
    """
    if ttl is not None and (not isinstance(ttl, int) or isinstance(ttl, bool) or not 1 <= ttl < 1 << 31):
        raise StorageRefused(f"ttl is 1 or more whole seconds, not {ttl!r:.40}", hint="None: it never ends")
    check_seconds(delay, "delay", 0)
    if ttl is not None and delay >= ttl:
        raise StorageRefused(f"a message that lives {ttl} s cannot wait {delay} s", hint="a shorter delay, or ttl=None")


def check_most(most: object) -> int:
    """The number itself, if so many messages can be had at once.

    Raises:
        StorageRefused: they cannot.
    """
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= RECEIVE_MAX:
        raise StorageRefused(f"1 to {RECEIVE_MAX} messages at once, not {most!r:.40}")
    return most


def write_content(content: object) -> str:
    """The content as text that XML can carry: itself where it can be, else marked and in base64.

    Raises:
        StorageRefused: neither text nor bytes, or too large.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        written = _BYTES_MARK + base64.b64encode(content).decode()
    elif isinstance(content, str):
        try:
            data = content.encode()
        except UnicodeEncodeError as error:
            raise StorageRefused(f"half of a surrogate pair is no character: {content!r:.80}") from error
        marked = content.startswith((_TEXT_MARK, _BYTES_MARK)) or _NOT_XML.search(content)
        written = _TEXT_MARK + base64.b64encode(data).decode() if marked else content
    else:
        raise StorageRefused(
            f"a message is text or bytes, not {type(content).__name__}: {content!r:.80}", hint="such as json.dumps(…)"
        )
    if (size := len(written.encode())) > BODY_BYTES_MAX:
        raise StorageRefused(
            f"the message has {size} bytes as written, {BODY_BYTES_MAX} are allowed",
            hint="put it in an object and send its key",
        )
    return written


def read_content(written: str | None) -> str | bytes:
    """The content that is written so; what others sent is text."""
    text = written or ""
    for mark in (_TEXT_MARK, _BYTES_MARK):
        if text.startswith(mark):
            try:
                data = base64.b64decode(text[len(mark) :], validate=True)
                return data if mark == _BYTES_MARK else data.decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return text
    return text


def no_queue(store: QueueStore, queue: str) -> ObjectNotFound:
    """The error of a queue that is not there."""
    return ObjectNotFound(f"no queue {queue!r:.80} in {store.name}", hint="create_queue makes it", queue=queue)


def stale(queue: str, message: QueueMessage) -> ObjectConflict:
    """The error of whoever's receipt counts no more."""
    return ObjectConflict(
        f"the message {message.id} of the queue {queue!r:.80} was received by somebody else since, or is gone",
        hint="drop what you did with it, or make it repeatable; ask for more visibility next time",
    )
