"""What all layers share: a store over another one that passes everything on, and which may lie over which.

A layer's caller sees plain objects, its `inner` store sees what the layer made of them: ``Compressed(Sealed(store))``
compresses and then encrypts; ``Sealed(Compressed(store))`` would compress ciphertext and is refused. `UNSOUND` has all
orders that are refused, be one directly over the other or others between them. What is not in it is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

import msgspec

from holdfast.errors import StorageRefused
from holdfast.objects.port import TYPE, Content, Expect, Health, ObjectInfo, ObjectStore, Source

CACHED: Final = "cached"
COMPRESSED: Final = "compressed"
SEALED: Final = "sealed"
LIMITED: Final = "limited"
RETRYING: Final = "retrying"
FALLBACK: Final = "fallback"
MIRRORED: Final = "mirrored"
AUDITED: Final = "audited"
METERED: Final = "metered"
LOGGED: Final = "logged"
KINDS: Final = (CACHED, COMPRESSED, SEALED, LIMITED, RETRYING, FALLBACK, MIRRORED, AUDITED, METERED, LOGGED)

_PROVES_ITSELF: Final = "its catch-up is verified by reading back, and a cache would prove itself: cache outside"
_ONE_TRY: Final = "whoever fails once is left at once, before any retry: let each of the stores retry, inside"
_GAPS: Final = "what the other store does would be missing in the audit: audit outside"

UNSOUND: Final[Mapping[tuple[str, str], str]] = {
    # (outer, inner): why not
    (SEALED, COMPRESSED): "ciphertext does not get smaller: write Compressed(Sealed(store))",
    (CACHED, CACHED): "the inner cache may be as old as its time allows when the outer one begins to count",
    (COMPRESSED, COMPRESSED): "what was compressed does not get smaller",
    (SEALED, SEALED): "one seal is enough; to change keys, rotate them",
    (RETRYING, RETRYING): "the tries multiply: five times five is no answer for minutes",
    (AUDITED, AUDITED): "every action would be audited twice",
    (RETRYING, FALLBACK): _ONE_TRY,
    (RETRYING, MIRRORED): "a retry would write again what one of the stores has: let each of them retry, inside",
    (RETRYING, AUDITED): "one action would be audited once for each try: audit outside",
    (FALLBACK, CACHED): _PROVES_ITSELF,
    (MIRRORED, CACHED): _PROVES_ITSELF,
    (FALLBACK, AUDITED): _GAPS,
    (MIRRORED, AUDITED): _GAPS,
    (CACHED, AUDITED): "what the cache answers would be missing in the audit: audit outside",
    (LIMITED, AUDITED): "what the quota refuses would be missing in the audit: audit outside",
}
"""Orders that are refused when the outer layer is made, each with its reason."""


class Layer(ObjectStore):
    """A store over another one; by itself it passes everything on. A layer overrides what it changes.

    Args:
        inner: the store below; closed with this one.
        others: more stores below, of layers over several.

    Raises:
        StorageRefused: one of the layers below must not lie below this one; the message says why.
    """

    kind: ClassVar[str] = ""
    """One of `KINDS`; a layer of your own has none, and may lie anywhere."""

    def __init__(self, inner: ObjectStore, *others: ObjectStore) -> None:
        for below in (inner, *others):
            check_order(self.kind, below)
        super().__init__()
        self.inner = inner
        self.inners = (inner, *others)

    @property
    def name(self) -> str:
        return self.inner.name

    # Read each time: a store over the network may find out later what it lacks.
    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(store.lacks for store in self.inners))

    @property
    def lists_all(self) -> bool:  # type: ignore[override]
        return all(store.lists_all for store in self.inners)

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return all(store.quick for store in self.inners)

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._open()
        return self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        return self.inner.get(key, start=start, stop=stop)

    def head(self, key: str) -> ObjectInfo:
        self._open()
        return self.inner.head(key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        return self.inner.list(prefix, after=after, limit=limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        return self.inner.delete(key, expect=expect)

    def health(self) -> Health:
        return msgspec.structs.replace(self.inner.health(), store=self.name, lacks=tuple(sorted(self.lacks)))

    def close(self) -> None:
        """Closes the stores below too."""
        super().close()
        for store in self.inners:
            store.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(map(repr, self.inners))}>"


class Through(Content):
    """An object's bytes as a layer makes them of another content's, which is closed with this one.

    Args:
        info: as the layer's caller sees it.
        pieces: made of the bytes of `below`.
        below: what they come from.
    """

    def __init__(self, info: ObjectInfo, pieces: Iterable[bytes], below: Content) -> None:
        super().__init__(info, pieces)
        self._below = below

    def close(self) -> None:
        super().close()
        self._below.close()


def layers_of(store: ObjectStore) -> Iterator[Layer]:
    """The layers of a store from the outside to the inside; all branches of those over several stores."""
    if isinstance(store, Layer):
        yield store
        for below in store.inners:
            yield from layers_of(below)


def check_order(kind: str, below: ObjectStore) -> None:
    """Whether a layer of this kind may lie over a store.

    Raises:
        StorageRefused: a layer below must not lie below it; the message says why.
    """
    for layer in layers_of(below):
        why = UNSOUND.get((kind, layer.kind))
        if why is not None:
            if kind == layer.kind:
                raise StorageRefused(f"{kind} twice: {why}", outer=kind, inner=layer.kind)
            raise StorageRefused(f"{kind} over {layer.kind}: {why}", outer=kind, inner=layer.kind)


def stack(store: ObjectStore, *layers: Callable[[ObjectStore], ObjectStore]) -> ObjectStore:
    """The store with layers over it; the first one lies on the store, the last one is what the caller meets.

    Args:
        store: the lowest; closed with what is returned.
        layers: classes of layers, or anything that makes a store of a store, such as ``partial(Limited, bytes_max=9)``.

    Raises:
        StorageRefused: an order that is not sound; the message says why.
    """
    for layer in layers:
        store = layer(store)
    return store
