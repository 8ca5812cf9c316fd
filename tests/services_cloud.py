"""Object stores as clouds have them, started by the tests: moto and rclone for S3, Azurite for Azure.

As in `tests.services`: no fixed ports, no root, gone when the test process is, skipped with a reason where missing.
moto has S3's semantics and takes any credentials; rclone checks signatures and ignores preconditions without a word;
Azurite has Blob, Queue and Table, with keys over http or with bearer tokens over https.
"""

from __future__ import annotations

import atexit
import base64
import http.client
import ipaddress
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.services import DEADLINE_S, missing

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every emulator there is; it opens nothing else."""
AZURITE = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
"""Where `make test` installs it."""
AZURITE_OPTIONS = ("--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl", "--inMemoryPersistence")
S = TypeVar("S", bound="Service")


class Service:
    """A server in a process of its own, which ends with us.

    Args:
        command: how to start it, on port 0.
        says: what it prints when it listens, with the port as its group; as many lines as it has ports.
        ports: so many.
    """

    def __init__(self, command: list[str], says: str, ports: int = 1) -> None:
        setpriv = shutil.which("setpriv")
        self.directory = Path(tempfile.mkdtemp(prefix="hf-service-"))
        self.log = self.directory / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*([setpriv, "--pdeathsig=KILL"] if setpriv else []), *command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(self.directory), "PYTHONUNBUFFERED": "1"},
            )
        self.numbers = itertools.count(1)
        try:
            self.ports = self._wait(says, ports)
        except BaseException:
            Service.close(self)
            raise

    def _wait(self, says: str, ports: int) -> list[int]:
        end = time.monotonic() + DEADLINE_S
        while True:
            text = self.log.read_text("utf-8", "replace")
            if len(found := re.findall(says, text)) >= ports:
                return [int(port) for port in found[:ports]]
            assert self._process.poll() is None, f"did not start: {text[-2000:]}"
            assert time.monotonic() < end, f"does not answer: {text[-2000:]}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends it at once: nothing that it keeps is wanted."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE_S)

    def close(self) -> None:
        """Ends it, and removes what it kept."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Moto(Service):
    """S3 as AWS means it, in memory: creates once, swaps by ETag, keeps versions. It takes any credentials."""

    def __init__(self) -> None:
        program = _program("moto_server")
        super().__init__([program, "-H", "127.0.0.1", "-p", "0"], r"Running on http://127\.0\.0\.1:(\d+)")
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.options = {
            "endpoint": self.url,
            "access_key_id": "anybody",
            "secret_access_key": "anything",
            "region": "us-east-1",
        }

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{next(self.numbers)}"
        self.request("PUT", f"/{name}")
        return name

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Asks it without a signature; the answer's body."""
        return _request(self.ports[0], method, path, body)


class Rclone(Service):
    """S3 that checks signatures, and takes no notice of If-Match and If-None-Match: it overwrites without a word.

    Args:
        directory: what it serves, a subdirectory a bucket: a key cannot be the beginning of another one there. None:
            its memory, where it can.
    """

    def __init__(self, directory: Path | None = None) -> None:
        options = ["--addr", "127.0.0.1:0", "--auth-key", "tester,secret-of-tester", "--config", os.devnull]
        where = ":memory:" if directory is None else str(directory)
        command = [_program("rclone"), "serve", "s3", *options, where]
        super().__init__(command, r"Starting s3 server on \[http://127\.0\.0\.1:(\d+)/\]")
        self.served = directory
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.options = {
            "endpoint": self.url,
            "access_key_id": "tester",
            "secret_access_key": "secret-of-tester",
            "region": "us-east-1",
        }

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{next(self.numbers)}"
        if self.served is not None:
            (self.served / name).mkdir()
            return name
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.options["access_key_id"],
            aws_secret_access_key=self.options["secret_access_key"],
            region_name=self.options["region"],
            config=Config(s3={"addressing_style": "path"}),
        )
        client.create_bucket(Bucket=name)
        client.close()
        return name


class Azurite(Service):
    """Azure Storage: Blob, Queue and Table, in memory.

    Args:
        tokens: https with an authority of its own (`certificate`), and bearer tokens (`Credential`) beside the key.
    """

    def __init__(self, *, tokens: bool = False) -> None:
        node = shutil.which("node")
        if node is None or not AZURITE.exists():
            missing("Azurite (node and npm, then make test)")
            raise AssertionError
        self.certificate: Path | None = None
        options = [*AZURITE_OPTIONS]
        for name in ("blob", "queue", "table"):
            options += [f"--{name}Host", "127.0.0.1", f"--{name}Port", "0"]
        if tokens:
            self._certificates = Path(tempfile.mkdtemp(prefix="hf-tls-"))
            self.certificate, own, key = make_certificates(self._certificates)
            options += ["--oauth", "basic", "--cert", str(own), "--key", str(key)]
        super().__init__(
            [node, str(AZURITE), *options],
            r"(?:Blob|Queue|Table) service is successfully listening at https?://127\.0\.0\.1:(\d+)",
            ports=3,
        )
        scheme = "https" if tokens else "http"
        found = dict(re.findall(r"(Blob|Queue|Table) service is successfully listening at \S+:(\d+)", self._said()))
        self.blob, self.queue, self.table = (
            f"{scheme}://127.0.0.1:{found[name]}/{ACCOUNT}" for name in ("Blob", "Queue", "Table")
        )
        self.connection_string = (
            f"DefaultEndpointsProtocol={scheme};AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={self.blob};QueueEndpoint={self.queue};TableEndpoint={self.table};"
        )

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def container(self) -> str:
        """The name of a new, empty container."""
        from azure.storage.blob import BlobServiceClient

        name = f"container-{next(self.numbers)}"
        verify: dict[str, Any] = {"connection_verify": str(self.certificate)} if self.certificate else {}
        with BlobServiceClient.from_connection_string(self.connection_string, **verify) as client:
            client.create_container(name)
        return name

    def close(self) -> None:
        super().close()
        if self.certificate is not None:
            shutil.rmtree(self._certificates, ignore_errors=True)


class Credential:
    """What azure-identity's credentials are to a client: tokens for the asking. Azurite looks at their claims only."""

    def __init__(self, lasts_s: int = 3600) -> None:
        self.asked = 0
        self._lasts_s = lasts_s

    def _token(self) -> tuple[str, int]:
        self.asked += 1
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
            "nbf": now - 60,
            "iat": now - 60,
            "exp": now + self._lasts_s,
            "appid": "tests",
            "sub": "tests",
        }
        return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims)}.c2ln", now + self._lasts_s

    def get_token(self, *scopes: str, **options: Any) -> Any:
        """A token, as credentials of old give it."""
        from azure.core.credentials import AccessToken

        return AccessToken(*self._token())

    def get_token_info(self, *scopes: str, **options: Any) -> Any:
        """A token, as newer clients ask for it."""
        from azure.core.credentials import AccessTokenInfo

        return AccessTokenInfo(*self._token())


def _part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """An authority's certificate; one that it signed, for 127.0.0.1; and the key to that: three PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    own = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "server")}
    paths = []
    for name, key in own.items():
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(address, critical=False)
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), critical=True)
            .sign(own["authority"], hashes.SHA256())
        )
        paths.append(directory / f"{name}.pem")
        paths[-1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = directory / "key.pem"
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret.write_bytes(own["server"].private_bytes(encoding, form, plain))
    return paths[0], paths[1], secret


def _program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        missing(name)
        raise AssertionError
    return found


def _request(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 300, (method, path, answer.status, content[:500])
        return content
    finally:
        connection.close()


_running: dict[str, Service] = {}


def _shared(name: str, make: Callable[[], S]) -> S:
    found = _running.get(name)
    if found is None:
        found = _running[name] = make()
        atexit.register(found.close)
    return found  # type: ignore[return-value]


def shared_moto() -> Moto:
    """The moto of this test process, started when it is first asked for."""
    return _shared("moto", Moto)


def shared_rclone() -> Rclone:
    """The rclone of this test process, serving its memory."""
    return _shared("rclone", Rclone)


def shared_azurite() -> Azurite:
    """The Azurite of this test process, over http with the account's key."""
    return _shared("azurite", Azurite)


def shared_azurite_tokens() -> Azurite:
    """The Azurite of this test process that takes bearer tokens, over https."""
    return _shared("azurite-tokens", lambda: Azurite(tokens=True))


@pytest.fixture
def moto() -> Moto:
    """S3 with S3's semantics; `bucket()` and `options` for a store there."""
    return shared_moto()


@pytest.fixture
def rclone() -> Rclone:
    """S3 that checks signatures and ignores preconditions."""
    return shared_rclone()


@pytest.fixture
def azurite() -> Azurite:
    """Azure Blob, Queue and Table: `connection_string`, `container()`."""
    return shared_azurite()


@pytest.fixture
def azurite_tokens() -> Azurite:
    """The same over https, for a `Credential`; trust its `certificate`."""
    return shared_azurite_tokens()


@pytest.fixture
def rclone_directory(tmp_path: Path) -> Iterator[Rclone]:
    """rclone over a directory of the test's own."""
    served = tmp_path / "served"
    served.mkdir()
    server = Rclone(served)
    yield server
    server.close()
