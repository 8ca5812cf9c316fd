"""Before a real server stands one that breaks things: the result is right, or the error is typed; nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from holdfast.objects import ABSENT, ObjectStore, open_store
from tests.fault_proxy import FaultProxy
from tests.fault_proxy import proxies as proxies
from tests.services_cloud import shared_azurite, shared_moto

LARGE = bytes(range(256)) * (9 << 12)  # 9 MiB: two parts
Opened = Callable[..., tuple[FaultProxy, ObjectStore]]


def s3(proxies: list[FaultProxy], **options: Any) -> tuple[FaultProxy, ObjectStore]:
    """A proxy before moto, and a store that goes through it."""
    moto = shared_moto()
    proxies.append(FaultProxy(moto.ports[0]))
    given = {**moto.options, "endpoint": proxies[-1].url, "retries": 3, "retry_s": 20, **options}
    return proxies[-1], open_store(f"s3://{moto.bucket()}", **given)


def azure(proxies: list[FaultProxy], **options: Any) -> tuple[FaultProxy, ObjectStore]:
    """A proxy before Azurite, and a store that goes through it."""
    azurite = shared_azurite()
    real = urlsplit(azurite.blob)
    assert real.port is not None
    proxies.append(FaultProxy(real.port))
    through = azurite.connection_string.replace(f"BlobEndpoint=http://{real.netloc}", f"BlobEndpoint={proxies[-1].url}")
    assert proxies[-1].url in through
    given = {"connection_string": through, "retries": 3, "retry_s": 20, **options}
    return proxies[-1], open_store(f"azure://{azurite.container()}", **given)


@pytest.fixture(params=[s3, azure], ids=["s3", "azure"])
def opened(request: pytest.FixtureRequest, proxies: list[FaultProxy]) -> Iterator[Opened]:
    """Opens a store behind a proxy."""
    made: list[ObjectStore] = []

    def opened(**options: Any) -> tuple[FaultProxy, ObjectStore]:
        proxy, store = request.param(proxies, **options)
        made.append(store)
        return proxy, store

    yield opened
    for store in made:
        store.close()


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset-upload", "500-after", "lost-answer"])
def test_a_conditional_write_knows_its_own_success(opened: Opened, fault: str) -> None:
    """Also when the answer was lost, and the second try was told that there is one already: our own."""
    proxy, store = opened()
    proxy.spoil("PUT", fault)
    try:
        first = store.put("one", b"1", expect=ABSENT)
    except StorageUnavailable:  # the driver does not send a write twice over every kind of error
        assert fault in ("429", "reset-upload")
        assert not store.exists("one")
        first = store.put("one", b"1", expect=ABSENT)
    assert store.head("one").etag == first.etag
    proxy.spoil("PUT", fault)
    try:
        second = store.put("one", b"2", expect=first.etag)
    except StorageUnavailable:
        assert fault in ("429", "reset-upload")
        assert store.head("one").etag == first.etag
        second = store.put("one", b"2", expect=first.etag)
    assert (store.read("one"), store.head("one").etag) == (b"2", second.etag)
    assert len(proxy.log) == 2
    with pytest.raises(ObjectConflict):
        store.put("one", b"3", expect=first.etag)


@pytest.mark.parametrize("fault", ["500-after", "lost-answer"])
def test_the_success_of_somebody_else_is_not_taken_for_ours(opened: Opened, fault: str) -> None:
    proxy, store = opened()
    theirs = store.put("one", b"the very same")
    proxy.spoil("PUT", fault)
    with pytest.raises((ObjectConflict, StorageUnavailable)):
        store.put("one", b"the very same", expect=ABSENT)
    assert store.head("one").etag == theirs.etag


@pytest.mark.parametrize("fault", ["500", "503", "half-answer", "lost-answer", "reset-upload"])
def test_reading_goes_on_over_faults(opened: Opened, fault: str) -> None:
    proxy, store = opened()
    store.put("large", LARGE)
    proxy.spoil("GET", fault)
    assert store.read("large") == LARGE
    proxy.spoil("GET", fault)
    assert store.read("large", start=5, stop=7_000_000) == LARGE[5:7_000_000]
    proxy.spoil("GET", fault)
    assert [info.key for info in store.list()] == ["large"]
    assert len(proxy.log) == 3


@pytest.mark.parametrize("fault", ["500", "half-answer", "lost-answer"])
def test_reading_that_cannot_go_on_is_an_error_and_no_half(opened: Opened, fault: str) -> None:
    proxy, store = opened(retries=1, retry_s=1)
    store.put("large", LARGE)
    proxy.always("GET", fault)
    for call in (lambda: store.read("large"), lambda: list(store.list())):
        with pytest.raises(StorageUnavailable):
            call()
    assert not store.health().ok
    proxy.heal()
    assert store.read("large") == LARGE


@pytest.mark.parametrize("fault", ["500", "reset-upload", "lost-answer", "500-after"])
def test_an_upload_in_parts_is_whole_or_not_there(opened: Opened, tmp_path: Path, fault: str) -> None:
    proxy, store = opened(retries=2)
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    store.put("large", b"before")
    for method in ("PUT", "POST"):
        proxy.spoil(method, fault)
        try:
            store.put("large", file)
            assert store.read("large") == LARGE
        except StorageError:
            assert store.read("large") in (b"before", LARGE)
        proxy.heal()
    assert store.put("large", file).size == len(LARGE)
    assert store.read("large") == LARGE


def test_a_changed_body_is_never_returned(opened: Opened) -> None:
    proxy, store = opened()
    store.put("one", b"the only copy of what an agent knows")
    store.put("large", LARGE)
    for key in ("one", "large"):
        proxy.spoil("GET", "changed")
        with pytest.raises(ObjectCorrupt, match="is not what was stored"):
            store.read(key)
    assert store.read("one") == b"the only copy of what an agent knows"


@pytest.mark.parametrize("fault", ["says-400-ExpiredToken", "says-403-AccessDenied", "says-401-InvalidToken"])
def test_expired_credentials_are_named(opened: Opened, fault: str) -> None:
    proxy, store = opened()
    store.put("one", b"1")
    for method in ("GET", "PUT", "HEAD"):
        proxy.always(method, fault)
    for call in (lambda: store.put("one", b"2"), lambda: store.read("one"), lambda: list(store.list())):
        with pytest.raises(StorageDenied):
            call()
    proxy.heal()
    assert store.read("one") == b"1"


def test_no_room_is_named(opened: Opened) -> None:
    proxy, store = opened(retries=0)
    store.put("one", b"1")
    proxy.spoil("PUT", "says-507-InsufficientStorage")
    with pytest.raises(StorageFull):
        store.put("one", b"2")
    assert store.read("one") == b"1"


def test_who_does_not_answer_is_given_up(opened: Opened) -> None:
    proxy, store = opened(retries=0, retry_s=0.2, timeout_s=0.5)
    before = store.put("one", b"1")
    for method in ("GET", "PUT", "HEAD", "DELETE"):
        proxy.always(method, "hang")
    calls: list[Callable[[], object]] = [
        lambda: store.read("one"),
        lambda: store.put("one", b"2"),
        lambda: store.put("one", b"2", expect=before.etag),
        lambda: list(store.list()),
        lambda: store.exists("one"),
        lambda: store.delete("one"),
    ]
    failed: list[type[BaseException]] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except StorageError as error:
            failed.append(type(error))

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [StorageUnavailable] * len(calls)  # and each came back
    proxy.heal()
    proxy.released.set()
    assert store.read("one") == b"1"
