"""Keys of rows: texts as segments between slashes, and the ids of checkpoints so that the newest comes first."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from typing import Any, Final
from urllib.parse import quote, unquote

from holdfast.errors import UsageError

SEGMENT_MAX: Final = 240
"""A longer segment is its digest; what it stands for is then in the row."""
ID_MAX: Final = 200
_SAFE: Final = " !#$&'()+,;@[]^{}:|"
_DIGEST: Final = "%="
_UUID: Final = "*"
_HEX: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGNS: Final = [chr(code) for code in range(0x21, 0x7E) if chr(code) != "/"]
_TURNED: Final = str.maketrans(dict(zip(_SIGNS, reversed(_SIGNS), strict=True)))
_ALLOWED: Final = frozenset(_SIGNS)
_KIND: Final = {sign: 1 + sum(sign > edge for edge in "/0123456789`abcdef") for sign in _SIGNS}
"""What a sign is among those of a UUID: one of them, or where it lies between them. 0 is the end."""
_KINDS: Final = 20
_HEX_OF: Final = {_KIND[sign]: sign for sign in "0123456789abcdef"}
_DASHED: Final = (8, 12, 16, 20)
"""Before these digits of a UUID there is a dash."""
_RADIX: Final = [_KINDS + 3 if number in _DASHED else _KINDS for number in range(32)]
_WEIGHTS: Final = [math.prod(_RADIX[number + 1 :]) for number in range(32)]
_DIGITS: Final = str.maketrans({sign: "0123456789abcdefghij"[kind] for kind, sign in _HEX_OF.items()})
_GROUPS: Final = [_WEIGHTS[last] for last in (7, 11, 15, 19, 31)]
_DASHES: Final = sum(2 * _WEIGHTS[number] for number in _DASHED)
_MOST: Final = math.prod(_RADIX) - 1
_WIDTH: Final = 22
_PAIRS: Final = [one + other for one in _SIGNS for other in _SIGNS]
_PAIR_AT: Final = {pair: number for number, pair in enumerate(_PAIRS)}
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


def task_segment(task: str) -> str:
    """The id of a task as a segment: a UUID, which all of LangGraph's are, by its bytes."""
    packed = packed_uuid(task) if isinstance(task, str) else None
    return _UUID + packed if packed else segment(task)


def packed_uuid(text: str) -> str | None:
    """The bytes of a UUID in base64; None: it is none, or not written as they are."""
    if not _HEX.fullmatch(text):
        return None
    return base64.urlsafe_b64encode(bytes.fromhex(text.replace("-", "")))[:22].decode()


def uuid_of(packed: str) -> str:
    """The UUID again."""
    text = base64.urlsafe_b64decode(f"{packed}==").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def told(**texts: str) -> dict[str, str]:
    """Those of these texts that their segments do not tell, for the row."""
    return {name: text for name, text in texts.items() if segment(text).startswith(_DIGEST)}


def text_of(part: str, raw: dict[str, Any], name: str) -> str:
    """What a segment stands for, with the help of its row."""
    if part.startswith(_DIGEST):
        found: str = raw[name]
        return found
    if part.startswith(_UUID):
        return uuid_of(part[1:])
    return unquote(part, errors="surrogatepass")


@functools.lru_cache(maxsize=8192)
def turned(checkpoint_id: str) -> str:
    """An id so that larger ids sort before smaller ones, one to one: a UUID, which nearly all are, in 22 signs.

    It is read as a number whose digits are what its signs are, as far as they are a UUID's; what follows is as it is.

    Raises:
        UsageError: it holds other signs than such ids do.
    """
    if not checkpoint_id or len(checkpoint_id) > ID_MAX or not _ALLOWED.issuperset(checkpoint_id):
        raise UsageError(
            f"{checkpoint_id!r:.80} is no id of a checkpoint", hint="1 to 200 signs of ASCII, no space, slash or tilde"
        )
    total, at = _number(checkpoint_id)
    total, out = _MOST - total, ""
    for _ in range(_WIDTH // 2):
        total, rest = divmod(total, len(_PAIRS))
        out = _PAIRS[rest] + out
    return out + checkpoint_id[at:].translate(_TURNED)


def id_of(text: str) -> str:
    """The id that `turned` gave."""
    total, out = 0, ""
    for at in range(0, _WIDTH, 2):
        total = total * len(_PAIRS) + _PAIR_AT[text[at : at + 2]]
    total = _MOST - total
    for number, weight in enumerate(_WEIGHTS):
        kind, total = divmod(total, weight)
        if number in _DASHED:
            if not 2 <= kind < _KINDS + 2:
                break
            out, kind = out + "-", kind - 2
        if kind not in _HEX_OF:
            break
        out += _HEX_OF[kind]
    return out + text[_WIDTH:].translate(_TURNED)


def _number(checkpoint_id: str) -> tuple[int, int]:
    """The number that an id begins as, larger for larger ids, and where what it does not say begins."""
    if _HEX.fullmatch(checkpoint_id):  # as below, several digits at once
        groups = checkpoint_id.translate(_DIGITS).split("-")
        return sum(int(group, _KINDS) * weight for group, weight in zip(groups, _GROUPS, strict=True)) + _DASHES, 36
    at, total = 0, 0
    for number, weight in enumerate(_WEIGHTS):
        if number in _DASHED:
            if checkpoint_id[at : at + 1] != "-":
                total += weight * (0 if at == len(checkpoint_id) else 1 if checkpoint_id[at] < "-" else _KINDS + 2)
                break
            at, total = at + 1, total + 2 * weight
        kind = _KIND[checkpoint_id[at]] if at < len(checkpoint_id) else 0
        total += weight * kind
        if kind not in _HEX_OF:
            break
        at += 1
    return total, at


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
    return f"{checkpoint_key(thread, namespace, checkpoint_id)}/{task_segment(task)}"


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
    return text_of(thread, raw, "thread"), text_of(namespace, raw, "ns"), id_of(rest[: -len(_END)])


def name_of(key: str) -> str:
    """By what rows name the checkpoint of a key: its id, turned."""
    return key.rsplit("/", 1)[1][: -len(_END)]


def moved(key: str, thread: str) -> str:
    """The key of the same row in another thread."""
    return f"{segment(thread)}/{key.split('/', 1)[1]}"


def thread_of(key: str) -> str:
    """Whom a row is about: the thread (by its digest, where that is what the key holds)."""
    return unquote(key.split("/", 1)[0], errors="surrogatepass")


def namespace_of(key: str) -> str:
    """Whom an item is about: its namespace, with slashes in between."""
    return unquote(key.partition("/=")[0], errors="surrogatepass")
