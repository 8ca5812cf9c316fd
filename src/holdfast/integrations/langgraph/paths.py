"""Keys of rows: texts as segments between slashes, and the ids of checkpoints so that the newest comes first."""

from __future__ import annotations

import hashlib
from typing import Any, Final
from urllib.parse import quote, unquote

from holdfast.errors import UsageError

SEGMENT_MAX: Final = 240
"""A longer segment is its digest; what it stands for is then in the row."""
ID_MAX: Final = 200
_SAFE: Final = " !#$&'()+,;@[]^{}:|"
_DIGEST: Final = "%="
_SIGNS: Final = [chr(code) for code in range(0x21, 0x7E) if chr(code) != "/"]
_TURNED: Final = str.maketrans(dict(zip(_SIGNS, reversed(_SIGNS), strict=True)))
_ALLOWED: Final = frozenset(_SIGNS)
_END: Final = "~"
"""Behind every sign that an id may hold, so that of two ids the one that the other begins with comes later."""


def segment(text: str) -> str:
    """A text as a segment of a key, one to one.

    Raises:
        UsageError: it is no text.
    """
    if not isinstance(text, str):
        raise UsageError(f"a name is text, got {type(text).__name__}: {text!r:.80}", hint="str(…) it")
    encoded = text.encode("utf-8", "surrogatepass")
    quoted = quote(encoded, safe=_SAFE)
    return quoted if len(quoted) <= SEGMENT_MAX else f"{_DIGEST}{hashlib.sha256(encoded).hexdigest()}"


def told(**texts: str) -> dict[str, str]:
    """Those of these texts that their segments do not tell, for the row."""
    return {name: text for name, text in texts.items() if segment(text).startswith(_DIGEST)}


def text_of(part: str, raw: dict[str, Any], name: str) -> str:
    """What a segment stands for, with the help of its row."""
    if part.startswith(_DIGEST):
        found: str = raw[name]
        return found
    return unquote(part, errors="surrogatepass")


def turned(checkpoint_id: str) -> str:
    """An id so that larger ids sort before smaller ones, and back again.

    Raises:
        UsageError: it holds other signs than such ids do.
    """
    if not checkpoint_id or len(checkpoint_id) > ID_MAX or not _ALLOWED.issuperset(checkpoint_id):
        raise UsageError(
            f"{checkpoint_id!r:.80} is no id of a checkpoint", hint="1 to 200 signs of ASCII, no space, slash or tilde"
        )
    return checkpoint_id.translate(_TURNED)


def thread_prefix(thread: str) -> str:
    """What the keys of a thread begin with."""
    return f"{segment(thread)}/"


def namespace_prefix(thread: str, namespace: str) -> str:
    """What the keys of a namespace in a thread begin with."""
    return f"{segment(thread)}/{segment(namespace)}/"


def checkpoint_key(thread: str, namespace: str, checkpoint_id: str) -> str:
    """The key of a checkpoint."""
    return f"{segment(thread)}/{segment(namespace)}/{turned(checkpoint_id)}{_END}"


def writes_key(thread: str, namespace: str, checkpoint_id: str, task: str) -> str:
    """The key of what a task wrote at a checkpoint."""
    return f"{checkpoint_key(thread, namespace, checkpoint_id)}/{segment(task)}"


def behind(key: str) -> str:
    """Where everything older than a checkpoint of this key begins."""
    return key + _END


def is_checkpoint(key: str) -> bool:
    """Whether it is the key of a checkpoint, not of writes."""
    return key.endswith(_END) and key.count("/") == 2


def whose(key: str) -> str:
    """The key of the checkpoint that a row belongs to."""
    return "/".join(key.split("/", 3)[:3])


def parts(key: str, raw: dict[str, Any]) -> tuple[str, str, str]:
    """Thread, namespace and id of the checkpoint that a row belongs to."""
    thread, namespace, rest = key.split("/", 3)[:3]
    return text_of(thread, raw, "thread"), text_of(namespace, raw, "ns"), rest[: -len(_END)].translate(_TURNED)


def moved(key: str, thread: str) -> str:
    """The key of the same row in another thread."""
    return f"{segment(thread)}/{key.split('/', 1)[1]}"


def thread_of(key: str) -> str:
    """Whom a row is about: the thread (by its digest, where that is what the key holds)."""
    return unquote(key.split("/", 1)[0], errors="surrogatepass")


def namespace_of(key: str) -> str:
    """Whom an item is about: its namespace, with slashes in between."""
    return unquote(key.partition("/=")[0], errors="surrogatepass")
