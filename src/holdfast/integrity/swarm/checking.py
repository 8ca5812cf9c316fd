"""The five checks of a value: what its shelf finds, and what the backups know that the shelf cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import IntegrityError, NotFound
from holdfast.integrity.swarm.shelf import Problems, nothing
from holdfast.integrity.swarm.words import IntegrityCheckType

if TYPE_CHECKING:
    from holdfast.integrity.swarm.storage import PersistentDataStorage


def problems(storage: PersistentDataStorage, data_id: str) -> Problems:
    """What is wrong with a value, by check.

    A shelf that was put back as a whole proves itself; a backup that knows a later version shows it.

    Raises:
        NotFound: it is known neither here nor in a backup.
    """
    holding = storage.backups.holding(data_id)
    found = nothing()
    try:
        found = storage.shelf.check(data_id, storage.now())
        newest = storage.shelf.newest(data_id)
    except NotFound:
        if not holding:
            raise
        newest = None
    except IntegrityError as error:
        if not any(found.values()):
            found[IntegrityCheckType.CHECKSUM].append(error.message)
        return found
    known = max((entry.kept.version for _, _, entry in holding), default=0)
    here = newest.kept.version if newest else 0
    if known > here:
        what = f"a backup has version {known}, here is {here or 'none'}: newer ones were lost, or an old file put back"
        found[IntegrityCheckType.VERSION_CONTROL].append(what)
    return found
