"""`S3StorageBackend`: the third backend of the seed, beside those for files and for Azure, over our S3 store."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from holdfast.errors import StoreClosed
from holdfast.objects.aio import AsyncObjectStore
from holdfast.objects.faces.backend import StoreBackend
from holdfast.objects.opening import open_store
from holdfast.objects.port import TYPE, Expect, ObjectInfo
from holdfast.objects.raw import Bytes


class S3StorageBackend(StoreBackend):
    """Objects in a bucket, on AWS or any server that speaks S3. Nothing is asked of it before the first call.

    Args:
        bucket: its name; it must be there.
        prefix: keys live below it.
        endpoint: the server's URL, if it is not AWS.
        region: AWS's name for it.
        options: more options of ``s3:``, such as `access_key_id` and `secret_access_key`; without them what the
            environment, the profile or the machine's role gives.

    The first call raises `MissingExtra` without ``pip install 'holdfast[s3]'``, and `StorageRefused` where there is no
    such bucket or option.
    """

    def __init__(
        self, bucket: str, *, prefix: str = "", endpoint: str | None = None, region: str | None = None, **options: Any
    ) -> None:
        self._address = f"s3://{bucket}/{prefix.strip('/')}" if prefix else f"s3://{bucket}"
        more = {"endpoint": endpoint, "region": region}
        self._options = options | {name: each for name, each in more.items() if each}
        self._lock = threading.Lock()
        self._opened: AsyncObjectStore | None = None
        self._closed = False

    @property
    def objects(self) -> AsyncObjectStore:  # type: ignore[override]
        """The store, opened when it is first asked for.

        Raises:
            MissingExtra: ``pip install 'holdfast[s3]'``.
            StorageError: the bucket cannot be used.
        """
        with self._lock:
            if self._closed:
                raise StoreClosed(f"{self._address} was closed")
            if self._opened is None:
                self._opened = AsyncObjectStore(open_store(self._address, **self._options))
            return self._opened

    async def close(self) -> None:
        """Lets go of connections; more than once is no error."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    async def put_object(
        self,
        key: str,
        data: Bytes,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        """Stores an object, in place of the one under this key; when it returns, it is there.

        Args:
            key: see `holdfast.objects.keys`.
            data: its bytes.
            content_type: a MIME type.
            metadata: names and values in ASCII, at most 2,000 bytes together.
            expect: the etag that must be current, or `ABSENT`; None: whatever is there.

        Raises:
            ObjectConflict: `expect` is not what is there; nothing was written.
            StorageError: it failed.
        """
        return await (await self._at()).put(key, data, content_type=content_type, metadata=metadata, expect=expect)

    async def get_object(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of an object, or a range of them.

        Raises:
            ObjectNotFound: there is none.
            StorageError: it failed.
        """
        return await (await self._at()).read(key, start=start, stop=stop)

    async def head_object(self, key: str) -> ObjectInfo:
        """What is known of an object without reading it.

        Raises:
            ObjectNotFound: there is none.
            StorageError: it failed.
        """
        return await (await self._at()).head(key)

    async def list_objects(self, prefix: str = "", *, limit: int | None = None) -> list[ObjectInfo]:
        """The objects whose keys begin with `prefix`, in order.

        Raises:
            StorageError: it failed.
        """
        return [info async for info in (await self._at()).list(prefix, limit=limit)]

    async def delete_object(self, key: str) -> bool:
        """Removes an object; False if there was none.

        Raises:
            StorageError: it failed.
        """
        return await (await self._at()).delete(key)
