"""The file of key-encryption keys. Several node directories, and rings for objects, may keep theirs in the same one.

So nothing is ever removed from it but a key that its own directory has stopped using, and nobody's key becomes the
first one, with which a ring seals. Whoever changes the file holds a lock on its directory meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.disk import sync_directory
from holdfast.node.locks import locked

if TYPE_CHECKING:
    from holdfast.seal import KeyRing


def add_key(path: Path, key_id: str) -> bytes:
    """A new key of this name, behind all that are in the file; durable when it returns."""
    from holdfast.seal import KeyRing

    with locked(path.parent):
        made = KeyRing.generate(key_id)
        try:
            kept = KeyRing.load(path)
        except FileNotFoundError:
            _write(path, made)
        else:
            keys = {each: kept.key(each) for each in kept.ids}
            _write(path, KeyRing(keys | {key_id: made.key(key_id)}))
        return made.key(key_id)


def drop_key(path: Path, key_id: str) -> None:
    """Removes a key; a file that then holds none goes too. One that is not there is as it should be."""
    from holdfast.seal import KeyRing

    with locked(path.parent), contextlib.suppress(FileNotFoundError):
        kept = KeyRing.load(path)
        rest = {each: kept.key(each) for each in kept.ids if each != key_id}
        if not rest:
            path.unlink()
            sync_directory(path.parent)
        elif len(rest) < len(kept.ids):
            _write(path, KeyRing(rest))


def _write(path: Path, ring: KeyRing) -> None:
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    ring.save(partial)
    os.replace(partial, path)
    sync_directory(path.parent)
