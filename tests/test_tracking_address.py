"""Messages for tracking addresses that do not work, from real local servers that reject, fail or are not trusted."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pemt_core.tracking import TrackingError, connect
from pemt_core.tracking.address import holds_password, without_password

Wrap = Callable[[HTTPServer], None]


@contextmanager
def answering(health: int, others: int, text: str, wrap: Wrap = lambda server: None) -> Iterator[int]:
    """Run a web server that answers /health and other paths with these statuses; yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(health if self.path == "/health" else others)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        wrap(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def error_of(uri: str, folder: Path) -> str:
    with pytest.raises(TrackingError) as caught:
        connect(uri, "pemt", folder, "stop")
    return str(caught.value)


@pytest.mark.parametrize(
    ("statuses", "text", "variables", "expected"),
    [
        ((502, 502), "", {}, "answers 502 Bad Gateway: the tracking server behind it is down, starting or failing"),
        ((200, 500), "", {}, "it answers 500: its database or its artifact store may be down; see its log"),
        ((401, 401), "no", {}, "it asks for credentials: set MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN"),
        ((200, 401), "no", {"MLFLOW_TRACKING_USERNAME": "ada"}, "it does not accept the user 'ada': correct"),
        ((200, 401), "no", {"MLFLOW_TRACKING_TOKEN": "abc"}, "it does not accept MLFLOW_TRACKING_TOKEN: correct"),
        ((200, 403), "Permission denied", {"MLFLOW_TRACKING_USERNAME": "ada"}, "the user 'ada' may not do this; ask"),
        ((200, 403), "Permission denied", {}, "an anonymous user may not do this; ask"),
        ((200, 403), "Invalid Host header - possible", {}, "it does not know this host name: add it to HOST_NAME"),
    ],
)
def test_a_server_that_refuses_or_fails_is_explained(
    statuses: tuple[int, int], text: str, variables: dict[str, str], expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    with answering(*statuses, text) as port:
        error = error_of(f"http://127.0.0.1:{port}", tmp_path)
    assert error.startswith(f"http://127.0.0.1:{port}: {expected}")
    assert "secret" not in error


def with_certificate(folder: Path) -> Wrap:
    """Add TLS with a self-signed certificate for 127.0.0.1, which is written to `folder`/certificate.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")

    def wrap(server: HTTPServer) -> None:
        server.socket = context.wrap_socket(server.socket, server_side=True)

    return wrap


def test_an_untrusted_certificate_is_explained_and_a_configured_one_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's variable names the certificate; the first probe does not read that variable."""
    with answering(200, 401, "no", with_certificate(tmp_path)) as port:
        error = error_of(f"https://127.0.0.1:{port}", tmp_path)
        assert f"https://127.0.0.1:{port}: its certificate is not trusted: set MLFLOW_TRACKING_SERVER" in error
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "certificate.pem"))
        assert "it asks for credentials" in error_of(f"https://127.0.0.1:{port}", tmp_path)


def test_an_unknown_host_name_is_explained(tmp_path: Path) -> None:
    error = error_of("https://mlflow.team.invalid", tmp_path)
    assert error.startswith("https://mlflow.team.invalid: no tracking server answers (unknown host name)")
    assert "correct tracking.uri (or MLFLOW_TRACKING_URI)" in error


@pytest.mark.parametrize("separator", ["", "@", "/", "?", "#", ":"])
def test_passwords_are_removed_from_addresses(separator: str, tmp_path: Path) -> None:
    """This includes addresses that are invalid because the password is not quoted."""
    secret = f"kiwi{separator}mango"
    database = error_of(f"postgresql://user:{secret}@mlflow.team.invalid/mlflow", tmp_path)
    server = error_of(f"http://user:{secret}@mlflow.team.invalid", tmp_path)
    for error in (database, server):
        assert "kiwi" not in error
        assert "mango" not in error
    assert without_password(f"postgresql://host/db?user=a&password={secret}") == "postgresql://host/db"
    assert holds_password(f"postgresql://user:{secret}@host/db")
    assert not holds_password("postgresql://user@host:5432/db")


def test_a_password_in_a_server_address_is_refused(tmp_path: Path) -> None:
    error = error_of("https://ada:pass@mlflow.example.org", tmp_path)
    assert error.startswith("https://mlflow.example.org: a user or password in a server's address")
    assert error.endswith("put them into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
