"""fsspec's suites for file systems over ours; run by `run`, which counts them."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from fsspec.tests import abstract
from holdfast_nodes import node

from holdfast.integrations.fsspec import HoldfastFileSystem


class Ours(abstract.AbstractFixtures):
    """A new file system for each test."""

    @pytest.fixture
    def fs(self) -> HoldfastFileSystem:
        return HoldfastFileSystem(node())

    @pytest.fixture
    def fs_path(self) -> str:
        return "below"

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join


class TestCopy(abstract.AbstractCopyTests, Ours): ...


class TestGet(abstract.AbstractGetTests, Ours): ...


class TestOpen(abstract.AbstractOpenTests, Ours): ...


class TestPipe(abstract.AbstractPipeTests, Ours): ...


class TestPut(abstract.AbstractPutTests, Ours): ...
