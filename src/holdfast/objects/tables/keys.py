"""Names and keys of tables as Azure can hold them, one to one and in the same order; a user never sees the difference.

Azure takes no ``/ \\ # ?`` in a key, and our keys are full of slashes. Percent signs would change the order of rows
(``a-b`` comes before ``a/b``, but ``a%2Fb`` before ``a-b``), and with it what a range finds. So each of the four is
written as the sign that comes right before it in Unicode, and U+FFFD, which comes after whatever else may follow that
sign: ``a/b`` is ``a.\\ufffdb``. Keys without these four are the same in Azure, so tables of other programs can be read.
"""

from __future__ import annotations

import re
from typing import Final

from holdfast.errors import StorageRefused

KEY_UNITS_MAX: Final = 512
"""Azure's 1 KiB, in UTF-16."""
LAST: Final = "\ufffd"
"""The greatest character that there is in UTF-16's order."""
_WRITTEN: Final = {sign: chr(ord(sign) - 1) + LAST for sign in "/\\#?"}
_READ: Final = {written: sign for sign, written in _WRITTEN.items()}
_WRITE: Final = str.maketrans(_WRITTEN)
_ESCAPED: Final = re.compile("|".join(re.escape(written) for written in _READ))
_NEVER: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd-\uffff]")
_PLAIN_TABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}")
_PLAIN_SERVICE: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
_TABLE_MARK: Final = "hf0"
_SERVICE_MARK: Final = "hf-"
_LETTERS: Final = {"0": "00", "_": "0u", "-": "0d", ".": "0p"}
_BACK: Final = {written: letter for letter, written in _LETTERS.items()}


def check_key(key: object, name: str = "key") -> str:
    """The key itself, if it can be one on every store; it may be empty.

    Args:
        key: the PartitionKey or the RowKey.
        name: which of them, for the error.

    Raises:
        StorageRefused: it cannot, and why.
    """
    if not isinstance(key, str):
        raise StorageRefused(f"{name} is text, not {type(key).__name__}: {key!r:.80}")
    key = str.__str__(key)  # of an Enum that is text: the text
    if _NEVER.search(key):
        raise StorageRefused(
            f"{name} cannot be {key!r:.120}: it has a control character, or one that is none",
            hint="Azure takes none in a key; encode them, for instance in base64",
        )
    if (size := units(write_key(key))) > KEY_UNITS_MAX:
        raise StorageRefused(
            f"{name} has {size} UTF-16 units, {KEY_UNITS_MAX} are allowed: {key!r:.80}",
            hint=r"/ \ # and ? count twice; Azure's limit is 1 KiB",
        )
    return key


def write_key(key: str) -> str:
    """The key as Azure holds it."""
    return key.translate(_WRITE)


def read_key(written: str) -> str:
    """The key that Azure holds so."""
    return _ESCAPED.sub(lambda found: _READ[found[0]], written) if LAST in written else written


def ordered(key: str) -> bytes:
    """Bytes that sort as Azure sorts keys: by UTF-16 units."""
    return key.encode("utf-16-be")


def from_ordered(key: bytes) -> str:
    """The key of such bytes."""
    return key.decode("utf-16-be")


def units(text: str) -> int:
    """How many UTF-16 units a text has: what Azure counts."""
    return len(text) + sum(1 for letter in text if letter > "\uffff") if not text.isascii() else len(text)


def check_name(name: object, what: str) -> str:
    """The name of a table, a queue or a container itself, if it can be one on every store.

    Raises:
        StorageRefused: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StorageRefused(
            f"not the name of a {what}: {name!r:.80}", hint="1 to 63 of the letters a-z and A-Z, digits, _ - and ."
        )
    written = write_table(name) if what == "table" else write_service(name)
    if len(written) > 63:
        raise StorageRefused(f"the name of the {what} is too long for Azure: {name!r:.80}", hint=f"there: {written}")
    return name


def write_table(name: str) -> str:
    """The name of a table as Azure has it: its own where Azure would take it, else ``hf0`` and the name escaped."""
    plain = _PLAIN_TABLE.fullmatch(name) and name.lower() != "tables" and not name.lower().startswith(_TABLE_MARK)
    return name if plain else _TABLE_MARK + "".join(_LETTERS.get(letter, letter) for letter in name)


def read_table(written: str) -> str | None:
    """The name of the table that Azure has so; None if none of ours can be called that."""
    if not written.lower().startswith(_TABLE_MARK):
        return written
    name = _unescaped(written[len(_TABLE_MARK) :])
    return name if name and write_table(name) == written else None


def write_service(name: str) -> str:
    """The name of a queue or a container as Azure has it: its own where Azure would take it, else ``hf-`` and escaped.

    ``agent_tasks`` is ``hf-agent0utasks``: ``_`` is ``0u``, ``-`` ``0d``, ``.`` ``0p``, ``0`` ``00``, ``A`` ``01a``.
    """
    if _PLAIN_SERVICE.fullmatch(name) and not name.startswith(_SERVICE_MARK):
        return name
    return _SERVICE_MARK + "".join(
        f"01{letter.lower()}" if letter.isupper() else _LETTERS.get(letter, letter) for letter in name
    )


def read_service(written: str) -> str | None:
    """The name of the queue or container that Azure has so; None if none of ours can be called that."""
    if not written.startswith(_SERVICE_MARK):
        return written
    name = _unescaped(written[len(_SERVICE_MARK) :])
    return name if name and write_service(name) == written else None


def _unescaped(text: str) -> str:
    def letter(found: re.Match[str]) -> str:
        return found[1].upper() if found[1] else _BACK.get(found[0], "?")

    return re.sub(r"01([a-z])|0.", letter, text)
