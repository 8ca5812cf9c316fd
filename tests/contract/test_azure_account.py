"""What Azure's clients are made to do: secrets kept, faults told apart, nothing done twice; tokens over https."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    ObjectConflict,
    ObjectNotFound,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
)
from holdfast.objects import AzureAccount, AzureQueues, AzureTables
from tests.services_cloud import Azurite, Credential

KEY = "bm90IGEga2V5IG9mIGFueWJvZHk="
ROW = {"PartitionKey": "p", "RowKey": "r/1"}
Answer = tuple[int, dict[str, str]]


class Faulty:
    """A server that answers as it is told, once each, and then with 204; it counts what it is asked."""

    def __init__(self, answers: list[Answer | None]) -> None:
        self.asked: list[str] = []
        faulty = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                faulty.asked.append(self.command)
                answer = answers[len(faulty.asked) - 1] if len(faulty.asked) <= len(answers) else (204, {"ETag": "e"})
                if answer is None:  # the line breaks after the request was read
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                for name, value in answer[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/account"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def faulty(*answers: Answer | None) -> Iterator[tuple[Faulty, AzureTables, AzureQueues]]:
    server = Faulty(list(answers))
    endpoints = "".join(f"{name}Endpoint={server.url};" for name in ("Blob", "Queue", "Table"))
    account = AzureAccount(f"AccountName=account;AccountKey={KEY};{endpoints}")
    try:
        yield server, AzureTables(account), AzureQueues(account)
    finally:
        account.close()
        server.close()


BUSY: Answer = (503, {"Retry-After": "0", "x-ms-error-code": "ServerBusy"})


def test_what_was_refused_for_now_is_asked_again() -> None:
    with faulty(BUSY, (429, {}), BUSY) as (server, tables, _):
        assert tables.upsert("rows", ROW) == "e"
        assert server.asked == ["PATCH"] * 4


@pytest.mark.parametrize("fault", [(500, {}), (504, {}), None], ids=["500", "504", "reset"])
def test_a_write_whose_fate_is_unknown_is_not_done_again(fault: Answer | None) -> None:
    with faulty(fault) as (server, tables, queues):
        with pytest.raises(StorageUnavailable):
            tables.insert("rows", ROW)
        assert server.asked == ["POST"]
    with faulty(fault) as (server, tables, queues):
        with pytest.raises(StorageUnavailable):
            queues.send("tasks", "x")
        assert server.asked == ["POST"]


@pytest.mark.parametrize("fault", [(500, {}), (504, {}), None], ids=["500", "504", "reset"])
def test_a_read_is_done_again(fault: Answer | None) -> None:
    with faulty(fault, fault, (404, {"x-ms-error-code": "QueueNotFound"})) as (server, _, queues):
        with pytest.raises(ObjectNotFound):
            queues.count("tasks")
        assert server.asked == ["GET"] * 3


def test_a_server_that_stays_away_is_given_up() -> None:
    with faulty(*[BUSY] * 50) as (server, tables, _):
        with pytest.raises(StorageUnavailable):
            tables.insert("rows", ROW)
        assert 2 < len(server.asked) < 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((400, {}), StorageRefused),
        ((401, {}), StorageDenied),
        ((403, {"x-ms-error-code": "AuthorizationPermissionMismatch"}), StorageDenied),
        ((404, {}), ObjectNotFound),
        ((409, {"x-ms-error-code": "EntityAlreadyExists"}), ObjectConflict),
        ((412, {}), ObjectConflict),
        ((413, {}), StorageRefused),
        ((507, {}), StorageFull),
    ],
)
def test_an_error_has_its_place_in_our_tree(answer: Answer, error: type[Exception]) -> None:
    with faulty(answer) as (server, tables, _):
        with pytest.raises(error):
            tables.insert("rows", ROW)
        assert server.asked == ["POST"]


def test_no_secret_is_in_a_message() -> None:
    urls = {name: "http://127.0.0.1:9/account" for name in ("table", "queue")}
    text = "BlobEndpoint=http://127.0.0.1:9/account;" + "".join(f"{k}Endpoint={v};" for k, v in urls.items())
    account = AzureAccount(f"{text}SharedAccessSignature=sv=2024&sig=c2VjcmV0&se=2030")
    with pytest.raises(StorageUnavailable) as caught:
        AzureTables(account).list_tables()
    assert "c2VjcmV0" not in str(caught.value)
    assert "c2VjcmV0" not in account.name("table")
    for broken in (f"AccountName=a;AccountKey={KEY};{KEY}", f"AccountKey={KEY}", "", "AccountName=a"):
        with pytest.raises(StorageRefused) as refused:
            AzureAccount(broken)
        assert KEY not in str(refused.value) + refused.value.hint
    account.close()
    with pytest.raises(StoreClosed):
        AzureTables(account).list_tables()


def test_http_goes_to_this_machine_alone() -> None:
    far = "http://account.blob.core.windows.net"
    wrong: list[Callable[[], AzureAccount]] = [
        lambda: AzureAccount(f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={KEY}"),
        lambda: AzureAccount(f"AccountName=account;AccountKey={KEY};TableEndpoint=http://tables.example"),
        lambda: AzureAccount(account_url=far, credential=Credential()),
        lambda: AzureAccount(account_url="http://127.0.0.1:1/a", credential=Credential(), urls={}),
        lambda: AzureAccount(account_url="https://own.example", credential=Credential()),
        lambda: AzureAccount(account_url="https://account.blob.core.windows.net"),
        lambda: AzureAccount(account_url="ftp://x", credential=Credential()),
        lambda: AzureAccount(f"AccountName=a;AccountKey={KEY}", account_url="https://a.blob.core.windows.net"),
        lambda: AzureAccount(f"AccountName=a;AccountKey={KEY}", ca_file="/nowhere.pem"),
        lambda: AzureAccount(),
    ]
    for make in wrong:
        with pytest.raises(StorageRefused):
            make()
    account = AzureAccount(account_url="https://account.blob.core.windows.net/", credential=Credential())
    assert account.urls["table"] == "https://account.table.core.windows.net"
    pool = account._pool().get_adapter("https://account.table.core.windows.net").poolmanager
    assert pool.connection_pool_kw["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_2
    account.close()
    account = AzureAccount("UseDevelopmentStorage=true")
    assert account.urls["queue"] == "http://127.0.0.1:10001/devstoreaccount1"


def test_a_wrong_key_is_denied(azurite: Azurite) -> None:
    account = AzureAccount(azurite.connection_string.replace("AccountKey=", "AccountKey=AAAA"))
    with pytest.raises(StorageDenied):
        AzureTables(account).list_tables()
    with pytest.raises(StorageDenied):
        AzureQueues(account).list_queues()
    account.close()


def test_azure_identity_over_https_with_a_token(azurite_tokens: Azurite) -> None:
    credential = Credential()
    given: dict[str, Any] = {
        "account_url": azurite_tokens.blob,
        "credential": credential,
        "urls": {"table": azurite_tokens.table, "queue": azurite_tokens.queue},
    }
    account = AzureAccount(**given, ca_file=azurite_tokens.certificate)
    tables, queues = AzureTables(account), AzureQueues(account)
    tables.create_table("token_rows")
    etag = tables.upsert("token_rows", ROW)
    assert tables.get("token_rows", "p", "r/1").etag == etag
    queues.create_queue("token_tasks")
    queues.send("token_tasks", b"x")
    (message,) = queues.receive("token_tasks")
    assert queues.delete("token_tasks", message)
    assert credential.asked > 0
    account.close()
    stranger = AzureAccount(**given)
    with pytest.raises(StorageUnavailable, match="certificate"):
        AzureTables(stranger).list_tables()
    stranger.close()


def test_without_the_extra_sqlite_goes_on_and_azure_says_what_brings_it(tmp_path: Path) -> None:
    program = """
import sys
import holdfast.objects as objects
assert not any(name.partition(".")[0] in ("azure", "requests", "apsw") for name in sys.modules)
class Hidden:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "azure":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
backend = objects.EmbeddedStorageBackend("account")
backend.tables.create_table("rows")
for make in (objects.AzureAccount, objects.AzureStorageBackend):
    try:
        make("UseDevelopmentStorage=true")
    except ImportError as error:
        print(type(error).__name__, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["MissingExtra pip install 'holdfast[azure]'"] * 2, done.stderr
