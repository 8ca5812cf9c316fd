"""Sections 6 to 9 of the AOS storage specification, block by block: see `test_aos_seed.py`."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.objects import StorageConfig, StorageManager
from tests.flow.aos import config as config
from tests.flow.aos import config_of, logger, run


class CachedStorageManager:
    """§6.1, as it stands."""

    def __init__(self, storage_manager: Any) -> None:
        self.storage = storage_manager
        self.cache: dict[str, Any] = {}

    async def load(self, key: str) -> Any:
        """Loads once."""
        if key in self.cache:
            return self.cache[key]

        data = await self.storage.load(key)
        self.cache[key] = data
        return data

    async def save(self, key: str, data: Any) -> None:
        """Saves, and remembers."""
        await self.storage.save(key, data)
        self.cache[key] = data  # Update cache


class TTLCache:
    """§6.1, as it stands."""

    def __init__(self, ttl_seconds: int = 300) -> None:
        self.cache: dict[str, Any] = {}
        self.ttl = ttl_seconds

    def get(self, key: str) -> Any:
        """What is fresh."""
        if key in self.cache:
            data, timestamp = self.cache[key]
            if datetime.now() - timestamp < timedelta(seconds=self.ttl):
                return data
            del self.cache[key]
        return None

    def set(self, key: str, data: Any) -> None:
        """Remembers."""
        self.cache[key] = (data, datetime.now())


def test_6_1_caching(config: StorageConfig) -> None:
    async def block(storage: StorageManager) -> None:
        cached = CachedStorageManager(storage)
        await cached.save("k", {"n": 1})
        await storage.delete("k")
        assert await cached.load("k") == {"n": 1}
        with pytest.raises(KeyError):
            await cached.load("other")
        for seconds, found in ((300, {"n": 1}), (0, None)):
            cache = TTLCache(seconds)
            cache.set("k", await cached.load("k"))
            assert cache.get("k") == found

    run(config, block)


def test_6_2_batches(config: StorageConfig) -> None:
    data1, data2, data3 = {"n": 1}, b"\x00", "three"

    async def block(storage: StorageManager) -> None:
        # Batch save
        items = [("key1", data1), ("key2", data2), ("key3", data3)]

        await asyncio.gather(*[storage.save(key, data) for key, data in items])

        # Batch load
        keys = ["key1", "key2", "key3"]
        results = await asyncio.gather(*[storage.load(key) for key in keys])
        assert results == [data1, data2, data3]
        assert (await storage.load_many([*keys, "key4"])).done == dict(items)

    run(config, block)


def test_6_3_compression(config: StorageConfig) -> None:
    large_dataset = {"rows": [{"n": n, "text": "the same again"} for n in range(500)]}

    # Compress large data before storage
    def compress_data(data: Any) -> bytes:
        json_str = json.dumps(data)
        return gzip.compress(json_str.encode())

    def decompress_data(compressed: bytes) -> Any:
        json_str = gzip.decompress(compressed).decode()
        return json.loads(json_str)

    async def block(storage: StorageManager) -> None:
        # Use with storage
        compressed = compress_data(large_dataset)
        await storage.save("large_dataset", compressed)
        assert decompress_data(await storage.load("large_dataset")) == large_dataset

    run(config, block)


def test_7_1_exceptions(config: StorageConfig) -> None:
    from holdfast.objects.faces.backend import StorageError

    default_data = {"default": True}
    met: list[str] = []

    async def read(storage: StorageManager) -> Any:
        try:
            data = await storage.load("some_key")
        except KeyError:
            # Key not found
            logger.warning("Key not found, using default")
            met.append("key")
            data = default_data
        except StorageError as e:
            # Storage backend error
            logger.error(f"Storage error: {e}")
            met.append("storage")
            raise
        except Exception as e:
            # Unexpected error
            logger.error(f"Unexpected error: {e}")
            raise
        return data

    async def block(storage: StorageManager) -> None:
        assert await read(storage) == default_data
        await storage.save("some_key", {"n": 1})
        assert await read(storage) == {"n": 1}
        await storage.close()
        with pytest.raises(Exception, match="closed"):
            await read(storage)
        other = StorageManager("file:" + os.devnull + "/below")
        with pytest.raises(StorageError):
            await read(other)
        assert met == ["key", "storage"]

    run(config, block)


class Failing:
    """A storage that is away for so many calls."""

    def __init__(self, storage: StorageManager, times: int) -> None:
        self.storage = storage
        self.left = times

    async def save(self, key: str, data: Any) -> Any:
        """Fails, or saves."""
        self._tick()
        return await self.storage.save(key, data)

    async def load(self, key: str) -> Any:
        """Fails, or loads."""
        self._tick()
        return await self.storage.load(key)

    def _tick(self) -> None:
        from holdfast.errors import StorageUnavailable

        self.left -= 1
        if self.left >= 0:
            raise StorageUnavailable("away for a moment")


def test_7_2_retry_logic(config: StorageConfig) -> None:
    from tenacity import RetryError, retry, stop_after_attempt, wait_exponential

    class ResilientStorageManager:
        def __init__(self, storage_manager: Any) -> None:
            self.storage = storage_manager

        @retry(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=1, min=2, max=10))
        async def save(self, key: str, data: Any) -> Any:
            return await self.storage.save(key, data)

        @retry(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=1, min=2, max=10))
        async def load(self, key: str) -> Any:
            return await self.storage.load(key)

    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    for method in (ResilientStorageManager.save, ResilientStorageManager.load):
        method.retry.sleep = wait  # type: ignore[attr-defined]

    async def block(storage: StorageManager) -> None:
        await ResilientStorageManager(Failing(storage, 2)).save("k", {"n": 1})
        assert await ResilientStorageManager(Failing(storage, 2)).load("k") == {"n": 1}
        with pytest.raises(RetryError):
            await ResilientStorageManager(Failing(storage, 3)).load("k")
        assert waited == [2, 2] * 3

    run(config, block)


def test_7_3_fallback(config: StorageConfig) -> None:
    async def block(storage: StorageManager) -> None:
        fallback_storage = storage
        primary_storage = Failing(storage, 1)
        await fallback_storage.save("k", {"n": 1})

        # Primary storage with fallback
        async def load_with_fallback(key: str) -> Any:
            try:
                return await primary_storage.load(key)
            except Exception as e:
                logger.warning(f"Primary storage failed: {e}, trying fallback")
                return await fallback_storage.load(key)

        assert await load_with_fallback("k") == {"n": 1}
        assert primary_storage.left == 0

    run(config, block)


def test_8_1_file_permissions(tmp_path: Path) -> None:
    run(config_of("file", tmp_path), lambda storage: _saved(storage, "k/secret"))
    for file_path in filter(Path.is_file, (tmp_path / "data").rglob("*")):
        # They are restricted already
        assert stat.S_IMODE(file_path.stat().st_mode) == 0o600

        # Restrict file permissions
        os.chmod(file_path, 0o600)  # Owner read/write only


async def _saved(storage: StorageManager, key: str) -> None:
    await storage.save(key, {"n": 1})
    assert await storage.load(key) == {"n": 1}


def test_8_2_encryption(config: StorageConfig) -> None:
    from cryptography.fernet import Fernet

    class EncryptedStorage:
        def __init__(self, storage_manager: Any, encryption_key: bytes) -> None:
            self.storage = storage_manager
            self.cipher = Fernet(encryption_key)

        async def save_encrypted(self, key: str, data: Any) -> None:
            encrypted = self.cipher.encrypt(json.dumps(data).encode())
            await self.storage.save(key, encrypted)

        async def load_encrypted(self, key: str) -> Any:
            encrypted = await self.storage.load(key)
            decrypted = self.cipher.decrypt(encrypted)
            return json.loads(decrypted.decode())

    async def block(storage: StorageManager) -> None:
        encrypted = EncryptedStorage(storage, Fernet.generate_key())
        await encrypted.save_encrypted("k", {"salary": 7})
        assert b"salary" not in await storage.load("k")
        assert await encrypted.load_encrypted("k") == {"salary": 7}

    run(config, block)


def test_8_3_audit_and_9_metrics_and_logs(
    config: StorageConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from holdfast.objects import MetricsCollector, audit_log, audit_to

    key, data, total_bytes, duration = "agent_configs/ceo", b"12345", 5, 1.5
    storage_type = backend_type = config.storage_type
    duration_ms = duration
    caplog.set_level(logging.INFO, "AOS.Storage")
    metrics = MetricsCollector()

    async def block(storage: StorageManager) -> None:
        await storage.save(key, data)

        # Log storage operations
        await audit_log(
            actor="system",
            action="storage_write",
            resource=f"storage/{key}",
            outcome="success",
            context={
                "storage_type": storage_type,
                "data_size": len(data),
                "timestamp": datetime.now().isoformat(),
            },
        )

        # Track storage operations
        metrics.increment("storage.operations.total", tags={"operation": "write"})
        metrics.timing("storage.latency", duration_ms, tags={"operation": "read"})
        metrics.gauge("storage.size.bytes", total_bytes)

        # Structured logging
        logger.info(
            "Storage operation completed",
            extra={
                "operation": "write",
                "key": key,
                "size_bytes": len(data),
                "backend": backend_type,
                "duration_ms": duration,
            },
        )

    events: list[Any] = []
    with audit_to(events.append):
        run(config, block)
    assert [(each.actor, each.resource, each.outcome) for each in events] == [("system", f"storage/{key}", "success")]
    assert metrics.value("storage.operations.total", {"operation": "write"}) == 1
    assert metrics.value("storage.size.bytes") == 5
    (record,) = (each for each in caplog.records if each.name == "AOS.Storage")
    assert (record.key, record.backend) == (key, storage_type)  # type: ignore[attr-defined]
