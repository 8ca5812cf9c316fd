"""The one door to Azure's own packages: clients for tables, queues and containers, and errors of ours in their place.

TLS 1.2 is the oldest that is spoken, and plain http to this machine alone. One pool of connections serves all three
services; a forked child gets its own. A key, a token or a signature is in no message.

The clients' own retries are off: they repeat a write whose answer was lost, and take its second answer ("there is one
already") for the truth. Here a write is repeated only where the server says that it did not do it.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import re
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from holdfast.errors import (
    HoldfastError,
    MissingExtra,
    ObjectConflict,
    ObjectNotFound,
    StorageDenied,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
)

CONNECT_S: Final = 5
READ_S: Final = 30
DEADLINE_S: Final = 60.0
"""How long a call is tried again, all in all."""
TRIES: Final = 6
POOL: Final = 32
PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 5.0
_SERVICES: Final = ("blob", "queue", "table")
_EMULATOR: Final = {"blob": 10000, "queue": 10001, "table": 10002}
_EMULATOR_NAME: Final = "devstoreaccount1"
# The key that Microsoft publishes for its emulators.
_EMULATOR_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_CONNECTION_HINT: Final = "DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…;EndpointSuffix=core.windows.net"
_BUSY: Final = ("ServerBusy", "OperationTimedOut", "InternalError")
_SECRET: Final = re.compile(r"(sig|AccountKey|SharedAccessSignature)=[^&;\s]+", re.IGNORECASE)
T = TypeVar("T")


@functools.cache
def azure(module: str) -> Any:
    """A module of Azure's packages, such as ``azure.data.tables``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        found = import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"Azure Storage needs a package that is not installed: {error.name}", hint="pip install 'holdfast[azure]'"
        ) from error
    # It writes every request at INFO, with its whole head.
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)
    return found


class AzureAccount:
    """An Azure storage account, and how to reach it. Any thread may use it, and so may a forked child.

    Args:
        connection_string: as the portal shows it, or ``UseDevelopmentStorage=true`` for an emulator on this machine.
        account_url: ``https://<account>.blob.core.windows.net``, in place of it.
        credential: beside `account_url`: of `azure.identity`, or of the same kind.
        urls: where ``table`` and ``queue`` are, if `account_url` does not tell.
        ca_file: a file with certificates to trust beside the system's.

    Raises:
        MissingExtra: Azure's packages are not installed.
        StorageRefused: not an account's address, or one in plain http that is not on this machine.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        account_url: str | None = None,
        credential: Any = None,
        urls: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        azure("azure.core")
        if (connection_string is None) == (account_url is None):
            raise StorageRefused(
                "an account is given by a connection string, or by account_url and credential", hint=_CONNECTION_HINT
            )
        if connection_string is not None:
            if credential is not None:
                raise StorageRefused("a connection string has its own credential", hint="or give account_url")
            self.urls, self.credential = _connection(connection_string)
        else:
            if credential is None:
                raise StorageRefused("account_url needs a credential", hint="such as DefaultAzureCredential()")
            self.urls, self.credential = _services(str(account_url)), credential
        self.urls = self.urls | {name: url.rstrip("/") for name, url in (urls or {}).items()}
        for name in _SERVICES:
            _check_url(name, self.urls.get(name), secret=hasattr(self.credential, "get_token"))
        self.ca_file = Path(ca_file) if ca_file is not None else None
        if self.ca_file is not None and not self.ca_file.is_file():
            raise StorageRefused(f"no file of certificates: {self.ca_file}", hint="PEM")
        self.connection_string = connection_string
        self._lock = threading.Lock()
        self._pid = 0
        self._session: Any = None
        self._clients: dict[str, Any] = {}
        self._closed = False
        _accounts.add(self)

    def name(self, service: str) -> str:
        """The address of one of its services, without secrets."""
        return self.urls[service].partition("?")[0]

    def table(self, name: str) -> Any:
        """The client of a table."""
        return self._client(f"table/{name}", lambda: self.tables().get_table_client(name))

    def tables(self) -> Any:
        """The client of all tables."""
        return self._client("table", lambda: self._made("azure.data.tables", "TableServiceClient", "table"))

    def queue(self, name: str) -> Any:
        """The client of a queue."""
        return self._client(f"queue/{name}", lambda: self.queues().get_queue_client(name))

    def queues(self) -> Any:
        """The client of all queues."""
        return self._client("queue", lambda: self._made("azure.storage.queue", "QueueServiceClient", "queue"))

    def containers(self) -> Any:
        """The client of all containers."""
        return self._client("blob", lambda: self._made("azure.storage.blob", "BlobServiceClient", "blob"))

    def store_options(self) -> dict[str, Any]:
        """What `open_store` wants to know, for a container of this account."""
        options: dict[str, Any] = {}
        if self.connection_string is not None:
            options["connection_string"] = self.connection_string
        else:
            options |= {"account_url": self.urls["blob"], "credential": self.credential}
        return options | ({"ca_file": str(self.ca_file)} if self.ca_file is not None else {})

    def _client(self, what: str, make: Callable[[], Any]) -> Any:
        if self._closed:
            raise StoreClosed(f"{self.name(what.partition('/')[0])} was closed")
        found = self._clients.get(what)
        if found is None:
            made = make()  # outside the lock: it may ask for another client
            with self._lock:
                found = self._clients.setdefault(what, made)
        return found

    def _made(self, module: str, client: str, service: str) -> Any:
        transport = azure("azure.core.pipeline.transport").RequestsTransport(
            session=self._pool(), session_owner=False, connection_timeout=CONNECT_S, read_timeout=READ_S
        )
        options = {"connection_verify": str(self.ca_file)} if self.ca_file is not None else {}
        return getattr(azure(module), client)(
            self.urls[service], credential=self.credential, transport=transport, retry_total=0, **options
        )

    def _pool(self) -> Any:
        with self._lock:
            if self._session is None:
                requests = import_module("requests")
                context = ssl.create_default_context()
                if self.ca_file is not None:
                    context.load_verify_locations(self.ca_file)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                self._session = requests.Session()
                for scheme in ("https://", "http://"):
                    adapter = requests.adapters.HTTPAdapter(pool_maxsize=POOL)
                    adapter.init_poolmanager(10, POOL, ssl_context=context)
                    self._session.mount(scheme, adapter)
            return self._session

    def call(self, call: Callable[[], T], what: str, *, again: bool = False) -> T:
        """What a call of one of the clients returns; tried again, until the deadline, where that is safe.

        Args:
            call: all of it, the fetching of a page too.
            what: what it is about, for errors.
            again: whether it may be done twice: it only reads, or its second time changes nothing.

        Raises:
            ObjectNotFound: 404.
            ObjectConflict: 409 and 412.
            StorageDenied: 401 and 403.
            StorageRefused: any other 4xx.
            StorageUnavailable: no answer, or a 5xx, until the deadline.
        """
        end = time.monotonic() + DEADLINE_S
        pause = PAUSE_S
        left = TRIES
        while True:
            left -= 1
            try:
                return call()
            except azure("azure.core.exceptions").AzureError as error:
                ours, wait = self._ours(error, what, again=again)
                least = random.uniform(0, pause)
                if wait is None or not left or time.monotonic() + max(wait, least) > end:
                    raise ours from error
                time.sleep(max(wait, least))
                pause = min(2 * pause, PAUSE_S_MAX)

    def _ours(self, error: Any, what: str, *, again: bool) -> tuple[HoldfastError, float | None]:
        """The error of our tree that Azure's means; and how long to wait before the next try, None: there is none."""
        kinds = azure("azure.core.exceptions")
        said = _SECRET.sub(r"\1=…", str(error).strip().partition("\n")[0])[:300]
        if isinstance(error, kinds.ClientAuthenticationError):
            return StorageDenied(f"{what}: the credentials are not accepted: {said}", hint="are they current?"), None
        status, code = getattr(error, "status_code", None), code_of(error)
        if not isinstance(error, kinds.HttpResponseError) or status is None:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return StorageUnavailable(
                    f"{what}: the server's certificate is not trusted", hint="name its authority: ca_file=…"
                ), None
            # Of a request that was never sent, nothing was done.
            wait = 0.0 if again or isinstance(error, kinds.ServiceRequestError) else None
            return StorageUnavailable(f"{what}: no answer: {said}"), wait
        context: dict[str, Any] = {"code": code} if code else {}
        index = getattr(error, "index", None)
        if isinstance(index, int):
            context |= {"index": index}
        if status == 404:
            return ObjectNotFound(f"{what}: {said}", **context), None
        # Of a queue that is there already Azure says 204.
        there = status in (409, 412) or code.endswith("AlreadyExists")
        if there and code not in _BUSY and not code.endswith("BeingDeleted"):
            return ObjectConflict(f"{what}: {said}", **context), None
        if status in (401, 403):
            return StorageDenied(f"{what}: {said}", hint="may these credentials do this?", **context), None
        if status == 507 or code == "AccountQuotaExceeded":
            return StorageFull(f"{what}: {said}", **context), None
        if status in (408, 409, 429) or status >= 500:
            # 503 and 429 say that it was not done; after any other 5xx it may have been.
            refused = status in (409, 429, 503)
            return StorageUnavailable(f"{what}: {said}", **context), _wait(error) if again or refused else None
        return StorageRefused(f"{what}: {said}", **context), None

    def close(self) -> None:
        """Hangs up; more than once is no error."""
        self._closed = True
        session, self._session = self._session, None
        self._clients = {}
        if session is not None:
            session.close()

    def in_child(self) -> None:
        """In a forked child: lets go of connections that are the parent's, without a word to the server."""
        self._lock = threading.Lock()
        _inherited.append((self._session, self._clients))
        self._session, self._clients = None, {}


_inherited: list[Any] = []
"""In a forked child: the parent's connections, kept so that nothing ends TLS on them."""


_accounts: weakref.WeakSet[AzureAccount] = weakref.WeakSet()


def _in_child() -> None:
    for account in list(_accounts):
        account.in_child()


os.register_at_fork(after_in_child=_in_child)


def code_of(error: Any) -> str:
    """Azure's own name for what went wrong, such as ``TableNotFound``; empty if it does not say."""
    code = getattr(error, "error_code", None)
    if code:
        return str(getattr(code, "value", code))
    response = getattr(error, "response", None)
    header = response.headers.get("x-ms-error-code") if response is not None else None
    if header:
        return str(header)
    # The tables' service says it in the body alone.
    found = re.search(r'"code"\s*:\s*"(\w+)"|ErrorCode:(\w+)', str(error))
    return (found[1] or found[2]) if found else ""


def _wait(error: Any) -> float:
    response = getattr(error, "response", None)
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0))) if response is not None else 0.0
    except ValueError:
        return 0.0


def _connection(text: str) -> tuple[dict[str, str], Any]:
    """The services' addresses and the credential that a connection string holds."""
    if not isinstance(text, str):
        raise StorageRefused(f"a connection string is text, not {type(text).__name__}")
    parts: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not value:
            # Not the value: it may be a key.
            raise StorageRefused(f"cannot read the connection string at {name[:40]!r}", hint=_CONNECTION_HINT)
        parts[name.strip().lower()] = value.strip()
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        for service, port in _EMULATOR.items():
            parts.setdefault(f"{service}endpoint", f"http://127.0.0.1:{port}/{_EMULATOR_NAME}")
        parts |= {"accountname": _EMULATOR_NAME, "accountkey": _EMULATOR_KEY}
    account, scheme = parts.get("accountname", ""), parts.get("defaultendpointsprotocol", "https")
    suffix = parts.get("endpointsuffix", "core.windows.net")
    urls: dict[str, str] = {}
    for service in _SERVICES:
        url = parts.get(f"{service}endpoint") or (f"{scheme}://{account}.{service}.{suffix}" if account else "")
        if url:
            urls[service] = url.rstrip("/")
    credentials = azure("azure.core.credentials")
    if account and "accountkey" in parts:
        return urls, credentials.AzureNamedKeyCredential(account, parts["accountkey"])
    if "sharedaccesssignature" in parts:
        return urls, credentials.AzureSasCredential(parts["sharedaccesssignature"].lstrip("?"))
    raise StorageRefused("the connection string has no AccountKey and no SharedAccessSignature", hint=_CONNECTION_HINT)


def _services(account_url: str) -> dict[str, str]:
    """The three services' addresses, from the address of any of them."""
    url = account_url.rstrip("/")
    found = re.fullmatch(r"(https?://[^/.]+)\.(?:blob|table|queue)\.([^/]+)", url)
    if found is None:
        return {"blob": url}  # such as an emulator's, or a domain of one's own: `urls` must tell
    return {service: f"{found[1]}.{service}.{found[2]}" for service in _SERVICES}


def _check_url(service: str, url: str | None, *, secret: bool) -> None:
    if not url:
        raise StorageRefused(
            f"nothing tells where the account's {service} service is", hint=f"urls={{{service!r}: 'https://…'}}"
        )
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise StorageRefused(f"not an address of a {service} service: {url[:40]!r}") from None
    if parts.scheme == "https" and host and not parts.username:
        return
    if secret:
        raise StorageRefused(
            f"a token goes over https only, not to {parts.scheme}://{host}"[:200], hint="or give a key"
        )
    if parts.scheme == "http" and (host in ("localhost", "::1") or host.startswith("127.")):
        return
    shown = f"{parts.scheme}://{host}"
    raise StorageRefused(f"not an address of a {service} service: {shown!r:.120}", hint="https, but for this machine")
