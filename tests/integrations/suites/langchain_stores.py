"""The suites of langchain-tests over our stores, caches and vector stores; run by `run`, which counts them."""

from __future__ import annotations

import pytest
from holdfast_nodes import node
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
    VectorStoreIntegrationTests,
)

from holdfast.integrations.langchain import HoldfastByteStore, HoldfastCache, HoldfastVectorStore

VALUES = b"foo", b"", b"\x00\xff"


class TestBytes(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self) -> HoldfastByteStore:
        return HoldfastByteStore(node())

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return VALUES


class TestBytesAwaited(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self) -> HoldfastByteStore:
        return HoldfastByteStore(node())

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return VALUES


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> HoldfastCache:
        return HoldfastCache(node())


class TestCacheAwaited(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> HoldfastCache:
        return HoldfastCache(node())


class TestVectors(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> HoldfastVectorStore:
        return HoldfastVectorStore(self.get_embeddings(), node())
