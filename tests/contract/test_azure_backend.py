"""The seed's AzureStorageBackend, its own blocks: on Azurite with a key and with a token, and in a directory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused, StoreClosed
from holdfast.objects import AzureStorageBackend, EmbeddedStorageBackend, QueueMessage, StorageBackend
from holdfast.objects.tables import Insert, Update, Upsert
from tests.services_cloud import Credential, shared_azurite, shared_azurite_tokens

Make = Callable[[Path], Any]


def by_key(directory: Path) -> AzureStorageBackend:
    """As the seed's first block has it, with Azurite's connection string."""
    connection_string = shared_azurite().connection_string
    return AzureStorageBackend(connection_string)


def by_token(directory: Path) -> AzureStorageBackend:
    """As the seed's second block has it; Azurite has its services at three ports, and a certificate of its own."""
    azurite = shared_azurite_tokens()
    return AzureStorageBackend(
        account_url=azurite.blob,
        credential=Credential(),
        urls={"table": azurite.table, "queue": azurite.queue},
        ca_file=azurite.certificate,
    )


def embedded(directory: Path) -> EmbeddedStorageBackend:
    """The same without Azure."""
    return EmbeddedStorageBackend(directory / "account")


each = pytest.mark.parametrize("make", [embedded, by_key, by_token])


@each
def test_the_seeds_blocks_on_blobs_and_tables_run(make: Make, tmp_path: Path) -> None:
    async def blocks() -> None:
        backend = make(tmp_path)
        model_data = bytes(range(256)) * 100
        messages = [{"role": "user", "content": "What of Q3?"}]

        # Blob operations
        await backend.upload_blob(
            container="models",
            blob_name="ceo_adapter.pkl",
            data=model_data
        )  # fmt: skip

        data = await backend.download_blob(
            container="models",
            blob_name="ceo_adapter.pkl"
        )  # fmt: skip
        assert data == model_data

        # List blobs
        await backend.upload_blob(container="models", blob_name="adapters/cfo", data="text")
        blobs = await backend.list_blobs(container="models", prefix="adapters/")
        assert blobs == ["adapters/cfo"]

        # Table operations for structured data
        await backend.insert_entity(
            table_name="talks",
            entity={
                "PartitionKey": "agent_ceo",
                "RowKey": "conv_001",
                "timestamp": "2025-12-25T00:00:00Z",
                "messages": json.dumps(messages)
            }
        )  # fmt: skip

        entity = await backend.get_entity(
            table_name="talks",
            partition_key="agent_ceo",
            row_key="conv_001"
        )  # fmt: skip
        assert json.loads(entity["messages"]) == messages
        assert entity["timestamp"] == "2025-12-25T00:00:00Z"

        # Query entities
        entities = await backend.query_entities(
            table_name="talks",
            filter="PartitionKey eq 'agent_ceo'"
        )  # fmt: skip
        assert [found["RowKey"] for found in entities] == ["conv_001"]
        await backend.close()

    asyncio.run(blocks())


@each
def test_the_seeds_blocks_on_queues_and_containers_run(make: Make, tmp_path: Path) -> None:
    async def blocks() -> None:
        backend = make(tmp_path)

        # Queue operations for event processing
        await backend.send_message(
            queue_name="agent_jobs",
            message=json.dumps({
                "task_id": "task_001",
                "agent_id": "ceo",
                "action": "analyze_report"
            })
        )  # fmt: skip

        message = await backend.receive_message(queue_name="agent_jobs")
        # Here the seed is no valid Python: an argument without a name cannot follow one with a name.
        assert await backend.delete_message("agent_jobs", message) is True
        assert json.loads(message.content)["task_id"] == message.json()["task_id"] == "task_001"
        assert await backend.receive_message(queue_name="agent_jobs") is None

        # Container-level access control
        await backend.create_container(
            name="sensitive_data",
            access_level="private"  # No public access
        )  # fmt: skip
        await backend.close()

    asyncio.run(blocks())


@each
def test_what_is_not_there_is_found_nowhere_and_made_by_who_writes(make: Make, tmp_path: Path) -> None:
    async def calls() -> None:
        async with make(tmp_path) as backend:
            assert await backend.list_blobs(container="Nobody_here") == []
            assert await backend.delete_blob("Nobody_here", "x") is False
            for nothing in (backend.download_blob("Nobody_here", "x"), backend.get_entity("nobody", "p", "r")):
                with pytest.raises(ObjectNotFound):
                    await nothing
            assert await backend.query_entities("nobody", "n eq 1") == []
            assert await backend.delete_entity("nobody", "p", "r") is False
            assert await backend.receive_message("nobody") is None
            assert await backend.peek_messages("nobody") == []
            assert await backend.create_container("Nobody_here") is True
            assert await backend.create_container("Nobody_here", access_level="private") is False
            with pytest.raises(StorageRefused, match="public"):
                await backend.create_container("x_y", access_level="public")
            for wrong in ("", "a/b", "ü", "x" * 64):
                with pytest.raises(StorageRefused):
                    await backend.upload_blob(wrong, "x", b"")
            await backend.upload_blob("Nobody_here", "x", b"1", content_type="text/plain")
            await backend.upload_blob("nobody_here", "x", b"2")  # another container
            assert await backend.download_blob("Nobody_here", "x") == b"1"
            assert await backend.delete_blob("Nobody_here", "x") is True
            with pytest.raises(ObjectNotFound):
                await backend.download_blob("Nobody_here", "x")
        await backend.close()
        with pytest.raises(StoreClosed):
            await backend.upload_blob("models", "x", b"")

    asyncio.run(calls())


@each
def test_tables_and_queues_have_all_that_their_ports_have(make: Make, tmp_path: Path) -> None:
    async def calls() -> None:
        async with make(tmp_path) as backend:
            one = {"PartitionKey": "p", "RowKey": "agents/ceo", "n": 1}
            await backend.submit_transaction("new_rows", [Upsert(one)])
            with pytest.raises(ObjectNotFound):
                await backend.submit_transaction("new_rows", [Update(one | {"RowKey": "nobody"})])
            etag = await backend.insert_entity("more_rows", one)
            with pytest.raises(ObjectConflict):
                await backend.insert_entity("more_rows", one)
            newer = await backend.update_entity("more_rows", one | {"n": 2}, etag=etag)
            with pytest.raises(ObjectConflict):
                await backend.update_entity("more_rows", one | {"n": 3}, etag=etag)
            await backend.upsert_entity("more_rows", one | {"RowKey": "other"}, mode="replace")
            await backend.submit_transaction("more_rows", [Upsert(one | {"m": 1}), Insert(one | {"RowKey": "third"})])
            found = await backend.query_entities("more_rows", "n ge 1", select=["n"], limit=2)
            assert [entity["n"] for entity in found] == [1, 1]
            with pytest.raises(ObjectConflict):
                await backend.delete_entity("more_rows", "p", "agents/ceo", etag=newer)
            assert await backend.delete_entity("more_rows", "p", "agents/ceo") is True

            for number in range(3):
                await backend.send_message("more_tasks", f"{number}", ttl=None)
            assert len(await backend.peek_messages("more_tasks", 5)) == 3
            held = await backend.receive_messages("more_tasks", 2, visibility_timeout=300)
            back = await backend.update_message("more_tasks", held[0], visibility_timeout=0)
            with pytest.raises(ObjectConflict):
                await backend.delete_message(queue_name="more_tasks", message=held[0])
            assert await backend.delete_message("more_tasks", back) is True
            assert isinstance(held[1], QueueMessage)
            with pytest.raises(StorageRefused, match="text or bytes"):
                await backend.send_message("more_tasks", {"a": 1})

    asyncio.run(calls())


@each
def test_it_is_a_backend_of_the_storage_manager(make: Make, tmp_path: Path) -> None:
    async def calls() -> None:
        async with make(tmp_path) as backend:
            assert isinstance(backend, StorageBackend)
            await backend.save("agent_configs/ceo", b"{}", "application/json")
            await backend.save("agent_configs/ceo/current", b"1")
            assert await backend.load_typed("agent_configs/ceo") == (b"{}", "application/json")
            assert await backend.list_keys("agent_configs/") == ["agent_configs/ceo", "agent_configs/ceo/current"]
            assert await backend.exists("agent_configs/ceo") is True
            assert await backend.delete("agent_configs/ceo") is True
            with pytest.raises(KeyError):
                await backend.load("agent_configs/ceo")
            assert await backend.list_blobs("holdfast") == ["agent_configs/ceo/current"]

    asyncio.run(calls())


def test_an_account_in_a_directory_is_one_for_all_who_open_it(tmp_path: Path) -> None:
    async def calls() -> None:
        async with embedded(tmp_path) as one, embedded(tmp_path) as other:
            await one.upload_blob("models", "x", b"1")
            await one.send_message("tasks", b"\x00")
            await one.upsert_entity("rows", {"PartitionKey": "p", "RowKey": "r"})
            assert await other.download_blob("models", "x") == b"1"
            message = await other.receive_message("tasks")
            assert message is not None
            assert message.content == b"\x00"
            assert len(await other.query_entities("rows")) == 1

    asyncio.run(calls())
    for path in (tmp_path / "account").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageRefused):
        EmbeddedStorageBackend(tmp_path / "file")
