"""The ways into a cloud: credentials, certificates, addresses, the environment; and what a forked child may not do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from holdfast.errors import MissingExtra, StorageDenied, StorageRefused, StorageUnavailable, StoreClosed
from holdfast.objects import ABSENT, ObjectConflict, open_store
from holdfast.objects.cloud.door import driver
from holdfast.objects.port import CREATE, SWAP
from tests.services_cloud import ACCOUNT_KEY, Azurite, Credential, Moto, Rclone


def test_azure_identity_over_https(azurite_tokens: Azurite) -> None:
    """A token of a credential, a certificate that is trusted because we say so; without either there is no way in."""
    container, credential = azurite_tokens.container(), Credential()
    options: dict[str, Any] = {"account_url": azurite_tokens.blob, "ca_file": azurite_tokens.certificate}
    with open_store(f"azure://{container}", credential=credential, **options) as store:
        first = store.put("one", b"1", expect=ABSENT)
        with pytest.raises(ObjectConflict):
            store.put("one", b"2", expect=ABSENT)
        assert store.put("one", b"2", expect=first.etag).etag != first.etag
        assert store.read("one") == b"2"
        assert [info.key for info in store.list()] == ["one"]
        assert store.delete("one") is True
    assert credential.asked >= 1
    with (
        open_store(f"azure://{container}", credential=Credential(lasts_s=-3600), **options) as late,
        pytest.raises(StorageDenied),
    ):
        late.read("one")
    with (
        open_store(
            f"azure://{container}", credential=credential, account_url=azurite_tokens.blob, retries=0
        ) as strange,
        pytest.raises(StorageUnavailable, match="did not answer") as caught,
    ):
        strange.read("one")
    assert "ca_file" in caught.value.hint


def test_wrong_keys_are_denied_and_not_shown(rclone: Rclone, azurite: Azurite) -> None:
    wrong = {**rclone.options, "secret_access_key": "a-secret-that-is-wrong"}
    with pytest.raises(StorageDenied) as caught:
        open_store(f"s3://{rclone.bucket()}", **wrong)
    assert "a-secret" not in str(caught.value)
    other = ACCOUNT_KEY.replace("Eby8", "Fby8")
    with pytest.raises(StorageDenied) as caught:
        open_store(f"azure://{azurite.container()}", connection_string=azurite.connection_string, account_key=other)
    assert other[:20] not in str(caught.value)
    with pytest.raises(StorageRefused) as refused:
        open_store("azure://container", connection_string=f"AccountKey={ACCOUNT_KEY}")
    assert ACCOUNT_KEY[:20] not in str(refused.value)


def test_the_environment_is_read_as_the_makers_tools_do(
    rclone: Rclone, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rclone.options["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rclone.options["secret_access_key"])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with open_store(f"s3://{rclone.bucket()}", endpoint=rclone.url) as store:
        store.put("one", b"1")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    with open_store(f"azure://{azurite.container()}") as store:
        store.put("one", b"1", expect=ABSENT)


def test_what_cannot_be_opened_says_why(moto: Moto, azurite: Azurite, tmp_path: Path) -> None:
    options = moto.options
    for address, more, why in (
        ("s3://no-such-bucket-here", {}, "no such bucket"),
        ("s3://bucket", {"endpoint": "http://storage.example.com"}, "http shows every byte"),
        ("s3://bucket", {"ca_file": tmp_path / "none.pem"}, "cannot read the certificates"),
        ("s3://bucket", {"regoin": "x"}, "no such option: regoin"),
        ("s3://bucket", {"retries": "three"}, "Expected `int`"),
        ("s3://bucket", {"timeout_s": 0}, "timeout_s"),
        ("s3://bucket/../x", {}, "not a key"),
        ("s3:bucket", {}, "not an address"),
        ("s3://", {}, "not an address"),
    ):
        with pytest.raises(StorageRefused, match=why):
            open_store(address, **{**options, **more})
    with pytest.raises(StorageRefused, match="no such bucket"):
        open_store("azure://no-such-container", connection_string=azurite.connection_string)
    with pytest.raises(StorageUnavailable):
        open_store("s3://bucket", **{**options, "endpoint": "http://127.0.0.1:1"}, retries=0)
    driver.cache_clear()
    with patch.dict(sys.modules, {"obstore": None}), pytest.raises(MissingExtra, match="not installed") as missing:
        open_store("gcs://bucket")
    assert "holdfast[gcs]" in missing.value.hint


def test_without_a_probe_no_condition_is_trusted(moto: Moto) -> None:
    bucket = moto.bucket()
    with open_store(f"s3://{bucket}", probe=False, **moto.options) as store:
        assert {CREATE, SWAP} <= store.lacks
        with pytest.raises(StorageRefused):
            store.put("one", b"1", expect=ABSENT)
        store.put("one", b"1")
        assert "not tried out" in store.health().note
    with open_store(f"s3://{bucket}", **moto.options) as store:
        assert not {CREATE, SWAP} & store.lacks
        assert [info.key for info in store.list()] == ["one"]
        with pytest.raises(StorageRefused, match="the store's own"):
            store.put(".holdfast-probe/x", b"1")
    assert b".holdfast-probe" not in moto.request("GET", f"/{bucket}?list-type=2"), "the probe cleans up"


def test_prefixes_keep_stores_apart_and_names_readable(moto: Moto) -> None:
    bucket = moto.bucket()
    with open_store(f"s3://{bucket}/a", **moto.options) as a, open_store(f"s3://{bucket}/ab/", **moto.options) as ab:
        a.put("b/c.json", b"1")
        ab.put("c", b"2")
        assert [info.key for info in a.list()] == ["b/c.json"]
        assert [info.key for info in ab.list()] == ["c"]
    with open_store(f"s3://{bucket}", **moto.options) as store:
        assert [info.key for info in store.list()] == ["a/b/c.json", "ab/c"]
    with (
        open_store(f"s3://{bucket}/{'p' * 80}", **moto.options) as deep,
        pytest.raises(StorageRefused, match="1024"),
    ):
        deep.put("/".join(["x" * 190] * 5), b"1")


def test_a_large_body_with_a_condition_is_refused_before_it_is_sent(moto: Moto) -> None:
    with open_store(f"s3://{moto.bucket()}", hold_max=1 << 20, **moto.options) as store:
        pieces = (b"x" * (1 << 20) for _ in range(3))
        with pytest.raises(StorageRefused, match="in one request"):
            store.put("large", pieces, expect=ABSENT)
        assert not store.exists("large")


def test_a_file_that_changes_while_it_is_stored_is_not_stored(moto: Moto, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(20 << 20))
    from holdfast.objects.cloud import store as module

    def changed(path: Path) -> Any:
        found = real(path)
        file.write_bytes(b"\x01" + bytes(20 << 20)[1:])
        return found

    real = module._digest
    with open_store(f"s3://{moto.bucket()}", **moto.options) as store:
        store.put("file", b"before")
        with patch.object(module, "_digest", changed), pytest.raises(StorageRefused, match="was changed"):
            store.put("file", file)
        assert store.read("file") == b"before"


def test_a_forked_child_is_refused_and_never_hangs(moto: Moto) -> None:
    """The driver's runtime dies in a fork, for new clients too: the child is told, and the parent goes on."""
    bucket = moto.bucket()
    with open_store(f"s3://{bucket}", **moto.options) as store:
        store.put("parent", b"before")
        child = os.fork()
        if child == 0:
            told = 0
            try:
                for call in (
                    lambda: store.read("parent"),
                    lambda: store.put("x", b""),
                    lambda: list(store.list()),
                    lambda: open_store(f"s3://{bucket}/other", **moto.options).read("x"),
                ):
                    try:
                        call()
                    except StoreClosed as error:
                        told += "forked child" in str(error)
            finally:
                os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        assert store.read("parent") == b"before"
        store.put("parent", b"after")
        assert [info.key for info in store.list()] == ["parent"]


def test_a_process_that_forks_before_its_first_cloud_store_has_both(moto: Moto) -> None:
    program = """
import os, sys
from holdfast.objects import open_store
bucket, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
child = os.fork()
with open_store(f"s3://{bucket}", **options) as store:
    store.put(f"of-{'child' if child == 0 else 'parent'}", b"1")
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    bucket = moto.bucket()
    arguments = [part for pair in moto.options.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-c", program, bucket, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with open_store(f"s3://{bucket}", **moto.options) as store:
        assert [info.key for info in store.list()] == ["of-child", "of-parent"]
