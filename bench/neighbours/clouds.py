"""Stores over the network: servers that run here, and who speaks with them.

rclone checks signatures as Amazon does and keeps everything in memory; moto has S3's semantics and is slow; Azurite is
Azure's emulator. The floor is the same requests, signed before the clock starts, on one connection that stays open:
what the server and the loopback take, whatever the client.
"""

from __future__ import annotations

import http.client
import os
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench.harness import Missing, Wrong
from bench.neighbours.object_stores import FOLDER, Objects, ObstoreObjects, Ours
from bench.processes import HERE, Process, free_port, listening, program, scratch

KEY_ID, SECRET, REGION = "bench", "secret-of-bench", "us-east-1"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every emulator there is; it opens nothing else."""
AZURITE = Path("azurite", "node_modules", "azurite", "dist", "src", "azurite.js")
AZURITE_OPTIONS = ("--skipApiVersionCheck", "--disableTelemetry", "--disableProductStyleUrl", "--inMemoryPersistence")


class Service(ABC):
    """A server on a port of its own; `close` ends it.

    Attributes:
        vendor: the SDK that its vendor gives away.
        clients: who speaks with it, by name: each is made for a bucket that is there.
    """

    vendor: str

    def __init__(self) -> None:
        self._held = ExitStack()
        self.folder = self._held.enter_context(scratch())
        self.port = free_port()
        try:
            self.process = self._held.enter_context(Process(self._command(), self.folder, cwd=self.folder))
            listening(self.port, self.process)
        except BaseException:
            self._held.close()
            raise
        self.clients: dict[str, Callable[[str], Objects]] = {}

    @abstractmethod
    def _command(self) -> list[str]:
        """How it is started."""

    @abstractmethod
    def bucket(self, name: str) -> str:
        """Makes a bucket; its name."""

    def close(self) -> None:
        """Ends it."""
        self._held.close()


def _beside(name: str) -> str:
    return program(name, str(Path(sys.executable).parent))


class S3(Service):
    """A server that speaks S3."""

    vendor = "boto3"

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}"
        self._maker: Any = None
        options = {"endpoint": self.url, "access_key_id": KEY_ID, "secret_access_key": SECRET, "region": REGION}
        self.clients = {
            "floor": partial(SignedS3, self.port),
            "holdfast": lambda bucket: Ours(f"s3://{bucket}", **options),
            "boto3": partial(Boto3, self.url),
            "obstore": partial(obstore_s3, options),
            "cloudpathlib": partial(S3Paths, self.url),
        }

    def bucket(self, name: str) -> str:
        """By boto3."""
        if self._maker is None:
            self._maker = boto3_client(self.url)
        self._maker.create_bucket(Bucket=name)
        return name


class Rclone(S3):
    """rclone serve s3, keeping everything in memory."""

    def _command(self) -> list[str]:
        options = ["--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY_ID},{SECRET}", "--config", os.devnull]
        return [_beside("rclone"), "serve", "s3", *options, ":memory:"]


class Moto(S3):
    """moto's server."""

    def _command(self) -> list[str]:
        return [_beside("moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]


class Azurite(Service):
    """Azurite's blobs, in memory."""

    vendor = "azure-storage-blob"

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        self.connection = f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={self.url};"
        self.clients = {
            "floor": partial(SignedAzure, self.port),
            "holdfast": lambda container: Ours(f"azure://{container}", connection_string=self.connection),
            "azure-storage-blob": partial(AzureBlobs, self.connection),
            "obstore": partial(obstore_azure, self.url),
            "cloudpathlib": partial(AzurePaths, self.connection),
        }

    def _command(self) -> list[str]:
        places = [Path(sys.prefix), HERE.parent / ".venv-bench", HERE.parent / ".venv"]
        found = next((place / AZURITE for place in places if (place / AZURITE).exists()), None)
        if found is None:
            raise Missing("Azurite is not installed")
        ports = [str(self.port), "0", "0"]
        options = [
            w for name, port in zip(("blob", "queue", "table"), ports, strict=True) for w in (f"--{name}Port", port)
        ]
        return [program("node"), str(found), "--silent", *AZURITE_OPTIONS, *options]

    def bucket(self, name: str) -> str:
        """By Azure's SDK."""
        from azure.storage.blob import BlobServiceClient

        with BlobServiceClient.from_connection_string(self.connection) as client:
            client.create_container(name)
        return name


# -- the floor ------------------------------------------------------------------------------------------------------


class Signed(Objects):
    """Requests over one connection, signed when they are asked for the first time, which is before the clock."""

    def __init__(self, port: int, bucket: str) -> None:
        self._port, self._bucket = port, bucket
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._ready: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}

    def prepare(self, key: str, body: bytes) -> None:
        """Signs what will be asked of a key; Azurite has hung up since the last turn, so the next request connects."""
        self._connection.close()
        self._ready["PUT", key] = self._signed("PUT", key, body)
        self._ready["GET", key] = self._signed("GET", key, b"")

    @abstractmethod
    def _signed(self, method: str, key: str, body: bytes) -> tuple[str, dict[str, str]]:
        """A request's path and headers."""

    def _ask(self, method: str, key: str, body: bytes | None) -> bytes:
        path, headers = self._ready[method, key]
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.status >= 300:
            raise Wrong(f"{method} {key}: {answer.status} {found[:300]!r}")
        return found

    def put(self, key: str, body: bytes) -> None:
        """One PUT."""
        self._ask("PUT", key, body)

    def get(self, key: str) -> bytes:
        """One GET."""
        return self._ask("GET", key, None)

    def close(self) -> None:
        """Hangs up."""
        self._connection.close()


class SignedS3(Signed):
    """With the signature of Amazon's own code."""

    def _signed(self, method: str, key: str, body: bytes) -> tuple[str, dict[str, str]]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        url = f"http://127.0.0.1:{self._port}/{self._bucket}/{key}"
        request = AWSRequest(method=method, url=url, data=body)
        S3SigV4Auth(Credentials(KEY_ID, SECRET), "s3", REGION).add_auth(request)
        return f"/{self._bucket}/{key}", dict(request.headers.items())


class SignedAzure(Signed):
    """With a signature for the whole container in the address."""

    def __init__(self, port: int, bucket: str) -> None:
        from datetime import UTC, datetime, timedelta

        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        super().__init__(port, bucket)
        until = datetime.now(UTC) + timedelta(days=1)
        allowed = ContainerSasPermissions(read=True, write=True, create=True)
        self._query = generate_container_sas(ACCOUNT, bucket, ACCOUNT_KEY, permission=allowed, expiry=until)

    def _signed(self, method: str, key: str, body: bytes) -> tuple[str, dict[str, str]]:
        headers = {"x-ms-version": "2023-11-03"} | ({"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {})
        return f"/{ACCOUNT}/{self._bucket}/{key}?{self._query}", headers


# -- the vendors' own -----------------------------------------------------------------------------------------------


def boto3_client(url: str) -> Any:
    """A client of boto3 with room for as many connections as there are callers."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as absent:
        raise Missing(f"not installed: {absent.name}") from absent
    # rclone's answers have no checksums of the kind that boto3 asks for by itself.
    settings = Config(
        s3={"addressing_style": "path"}, max_pool_connections=32, response_checksum_validation="when_required"
    )
    given = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": REGION}
    return boto3.client("s3", endpoint_url=url, config=settings, **given)


class Boto3(Objects):
    """put_object, get_object, list_objects_v2."""

    def __init__(self, url: str, bucket: str) -> None:
        self._client, self._bucket = boto3_client(url), bucket

    def put(self, key: str, body: bytes) -> None:
        """One PUT."""
        self._client.put_object(Bucket=self._bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        """One GET."""
        found: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return found

    def list(self) -> list[str]:
        """Page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{FOLDER}/")
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def close(self) -> None:
        """Hangs up."""
        self._client.close()


class AzureBlobs(Objects):
    """upload_blob, download_blob, list_blobs of a ContainerClient."""

    def __init__(self, connection: str, container: str) -> None:
        try:
            from azure.storage.blob import ContainerClient
        except ImportError as absent:
            raise Missing(f"not installed: {absent.name}") from absent
        self._client = ContainerClient.from_connection_string(connection, container)

    def put(self, key: str, body: bytes) -> None:
        """Whatever is there."""
        self._client.upload_blob(key, body, overwrite=True)

    def get(self, key: str) -> bytes:
        """All of it."""
        found: bytes = self._client.download_blob(key).readall()
        return found

    def list(self) -> list[str]:
        """Page by page."""
        return [blob.name for blob in self._client.list_blobs(name_starts_with=f"{FOLDER}/")]

    def close(self) -> None:
        """Hangs up."""
        self._client.close()


# -- others ---------------------------------------------------------------------------------------------------------


def obstore_s3(options: dict[str, str], bucket: str) -> Objects:
    """obstore's S3Store."""
    from obstore.store import S3Store

    return ObstoreObjects(
        S3Store(bucket, **options, virtual_hosted_style_request=False, client_options={"allow_http": True})
    )


def obstore_azure(url: str, container: str) -> Objects:
    """obstore's AzureStore."""
    from obstore.store import AzureStore

    return ObstoreObjects(
        AzureStore(
            container,
            account_name=ACCOUNT,
            account_key=ACCOUNT_KEY,
            endpoint=url,
            client_options={"allow_http": True},
        )
    )


class Paths(Objects):
    """cloudpathlib: paths whose files are kept in a directory here, too."""

    def __init__(self, client: Any, root: str, cache: str) -> None:
        self._client, self._root, self._cache = client, root, cache

    def put(self, key: str, body: bytes) -> None:
        """write_bytes."""
        self._client.CloudPath(f"{self._root}/{key}").write_bytes(body)

    def get(self, key: str) -> bytes:
        """read_bytes: of the server's, for what was read is forgotten with its path."""
        path = self._client.CloudPath(f"{self._root}/{key}")
        found: bytes = path.read_bytes()
        return found

    def list(self) -> list[str]:
        """iterdir."""
        return [str(path) for path in self._client.CloudPath(f"{self._root}/{FOLDER}/").iterdir()]

    def listed(self, found: Any) -> list[str]:
        """Whole addresses."""
        return sorted(address[len(self._root) + 1 :] for address in found)

    def close(self) -> None:
        """Removes what was kept here."""
        self._client.clear_cache()
        shutil.rmtree(self._cache, ignore_errors=True)


def _cache() -> dict[str, Any]:
    from cloudpathlib.enums import FileCacheMode

    return {
        "local_cache_dir": tempfile.mkdtemp(prefix="holdfast-bench-paths-"),
        "file_cache_mode": FileCacheMode.cloudpath_object,
    }


class S3Paths(Paths):
    """With boto3 below."""

    def __init__(self, url: str, bucket: str) -> None:
        try:
            import boto3
            from cloudpathlib import S3Client
        except ImportError as absent:
            raise Missing(f"not installed: {absent.name}") from absent
        session = boto3.Session(KEY_ID, SECRET, region_name=REGION)
        cache = _cache()
        super().__init__(
            S3Client(boto3_session=session, endpoint_url=url, **cache), f"s3://{bucket}", cache["local_cache_dir"]
        )


class AzurePaths(Paths):
    """With Azure's SDK below."""

    def __init__(self, connection: str, container: str) -> None:
        try:
            from cloudpathlib import AzureBlobClient
        except ImportError as absent:
            raise Missing(f"not installed: {absent.name}") from absent
        cache = _cache()
        client = AzureBlobClient(connection_string=connection, **cache)
        super().__init__(client, f"az://{container}", cache["local_cache_dir"])


SERVICES: dict[str, Callable[[], Service]] = {
    "S3 (rclone)": Rclone,
    "S3 (moto)": Moto,
    "Azure (Azurite)": Azurite,
}
