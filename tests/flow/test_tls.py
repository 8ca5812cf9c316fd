"""TLS, by a proxy before the hub or its own: everything works over https, and a stranger's certificate is refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import Hub, HubUnavailable, Store
from holdfast.errors import UsageError
from holdfast.hub.serve import serve
from tests.flow.hubs import HubProcess, until

BLOB = b"\x00\x01" * 100_000


class TlsProxy:
    """Ends TLS and passes on what is inside, as any reverse proxy does.

    Args:
        certificate: its certificate chain and key, in one PEM file.
        port: where the hub listens on this machine.
    """

    def __init__(self, certificate: Path, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            outside = self._context.wrap_socket(raw, server_side=True)
        except OSError:  # the client did not like the certificate
            raw.close()
            return
        inside = socket.create_connection(("127.0.0.1", self._port))
        back = threading.Thread(target=self._copy, args=(inside, outside), daemon=True)
        back.start()
        self._copy(outside, inside)
        back.join()
        for each in (outside, inside):
            each.close()

    @staticmethod
    def _copy(here: socket.socket, there: socket.socket) -> None:
        try:
            while data := here.recv(1 << 16):
                there.sendall(data)
        except OSError:
            pass
        for each in (here, there):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def make_certificate(path: Path) -> Path:
    """A certificate of its own for 127.0.0.1 with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub.test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        certificate.public_bytes(encoding) + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The proxy's, which nobody trusts yet."""
    return make_certificate(tmp_path / "hub.pem")


@pytest.fixture
def proxy(certificate: Path, hub: HubProcess) -> Iterator[TlsProxy]:
    """TLS before the hub."""
    running = TlsProxy(certificate, int(hub.url.rpartition(":")[2]))
    yield running
    running.close()


def test_everything_works_over_https(
    proxy: TlsProxy, certificate: Path, on_node: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    ada, bob = (on_node(name, name, hub=proxy.url) for name in ("ada", "bob"))
    with bob.changes("now") as changes:
        ada.put("plan", {"step": 1})
        ada.put("picture", BLOB)
        assert ada.flush(30)
        assert next(changes).value == {"step": 1}
        assert next(changes).value == BLOB
    assert bob.get("plan", agent="ada") == {"step": 1}
    assert bob.get("picture", agent="ada") == BLOB
    with Hub(proxy.url) as hub:
        assert hub.get("plan", agent="ada") == {"step": 1}


def test_a_hub_with_a_certificate_of_its_own(
    certificate: Path, tmp_path: Path, on_node: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = HubProcess(tmp_path / "own", tls_cert=str(certificate))
    try:
        ada = on_node("ada", "ada", hub=own.url)
        ada.put("plan", {"step": 1})
        assert not ada.flush(0.5), "nobody vouches for it yet"
        ada.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        ada, bob = (on_node(name, name, hub=own.url) for name in ("ada", "bob"))
        assert ada.flush(30)
        with bob.changes("now") as changes:
            ada.put("picture", BLOB)
            assert next(changes).value == BLOB
        assert bob.get("plan", agent="ada") == {"step": 1}
        with socket.create_connection(("127.0.0.1", own.port)) as plain:
            plain.sendall(b"GET /v1/records HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b"HTTP" not in plain.recv(1000), "nothing is said without TLS"
    finally:
        own.kill()


def test_a_renewed_certificate_is_used_from_a_hangup_on_and_a_bad_one_is_not(certificate: Path, tmp_path: Path) -> None:
    def shown() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", own.port)) as raw,
            context.wrap_socket(raw, server_hostname="hub") as line,
        ):
            return line.getpeercert(binary_form=True) or b""

    own = HubProcess(tmp_path / "own", tls_cert=str(certificate))
    try:
        first = shown()
        certificate.write_bytes(b"no certificate at all")
        own.signal(signal.SIGHUP)
        assert shown() == first
        make_certificate(certificate)
        own.signal(signal.SIGHUP)
        until(lambda: shown() != first, "the new certificate is shown")
    finally:
        own.kill()


def test_files_that_are_no_certificate_are_told_before_anything_is_made(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no certificate")
    other = make_certificate(tmp_path / "other.pem")
    for cert, key, said in (
        (tmp_path / "none", None, "cannot read .*none: No such file"),
        (tmp_path / "words", None, "not a certificate and its key"),
        (certificate, other, "not a certificate and its key"),
        (None, certificate, "a TLS key without its certificate"),
    ):
        with pytest.raises(UsageError, match=said):
            serve(tmp_path / "hub", port=0, tls_cert=str(cert) if cert else None, tls_key=str(key) if key else None)
    for options in ({"tls_terminated": True}, {"plain_http": True}):
        with pytest.raises(UsageError, match="TLS of its own, and none"):
            serve(tmp_path / "hub", port=0, tls_cert=str(certificate), **options)
    with pytest.raises(UsageError, match="tokens would travel readable") as caught:
        serve(tmp_path / "hub", "0.0.0.0", 0, token="t")
    assert "--tls-terminated" in caught.value.hint
    assert not (tmp_path / "hub").exists()


def test_a_certificate_that_nobody_vouches_for_is_no_hub(proxy: TlsProxy, on_node: Callable[..., Store]) -> None:
    ada = on_node("ada", "ada", hub=proxy.url)
    ada.put("plan", 1)
    assert not ada.flush(0.5)
    with Hub(proxy.url) as hub, pytest.raises(HubUnavailable, match="certificate") as caught:
        hub.get("plan", agent="ada")
    assert "SSL_CERT_FILE" in caught.value.hint
    assert ada.get("plan") == 1
