"""The default trust store, and what may take its place."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from aws_io_async import _trust_store, errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_context import (
    TlsContext,
    TlsContextOptions,
    default_ca_file,
    default_ca_path,
)
from tests.certificates import identity
from tests.tls_peers import (
    HOST,
    asking_server,
    client_of,
    handshake,
    presenting_client,
    server_of,
)


@pytest.fixture
def no_system_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without trusted certificates."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "no file"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "no folder"))
    monkeypatch.setattr(_trust_store, "CA_FILES", ())
    monkeypatch.setattr(_trust_store, "CA_FOLDERS", ())


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def ca_folder(ca_file: Path) -> Path:
    command = shutil.which("openssl")
    if command is None:
        pytest.skip("the openssl command prepares such folders")
    folder = ca_file.parent / "folder"
    folder.mkdir()
    shutil.copy(ca_file, folder)
    subprocess.run([command, "rehash", folder], check=True)
    return folder


def refused(client: TlsContext, server: TlsContext) -> bool:
    try:
        handshake(client, server)
    except ssl.SSLCertVerificationError:
        return True
    return False


def test_default_pki_path_exists() -> None:
    file, folder = default_ca_file(), default_ca_path()
    assert file or folder
    assert file is None or b"BEGIN CERTIFICATE" in Path(file).read_bytes()
    assert folder is None or any(Path(folder).iterdir())


@pytest.mark.usefixtures("no_system_store")
def test_the_environment_names_the_default_store(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert default_ca_file() == str(ca_file)
    handshake(TlsContext.client(), server_of(ca))


@pytest.mark.usefixtures("no_system_store")
def test_the_default_store_may_be_a_folder(
    ca: trustme.CA, ca_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_folder))
    assert default_ca_path() == str(ca_folder)
    handshake(TlsContext.client(), server_of(ca))


@pytest.mark.usefixtures("no_system_store")
def test_the_distributions_places_are_tried(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_trust_store, "CA_FILES", ("/nowhere/ca.pem", str(ca_file)))
    handshake(TlsContext.client(), server_of(ca))


@pytest.mark.usefixtures("no_system_store")
def test_a_machine_without_a_store_is_told_so(
    ca: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(_trust_store, "CA_FOLDERS", (str(tmp_path / "empty"),))
    with pytest.raises(errors.TlsContextError, match="override the default") as caught:
        TlsContext.client()
    assert caught.value.code is ErrorCode.IO_TLS_ERROR_DEFAULT_TRUST_STORE_NOT_FOUND
    assert not refused(client_of(ca), server_of(ca))
    unverified = TlsContextOptions.default_client()
    unverified.set_verify_peer(False)
    assert not refused(TlsContext.client(unverified), server_of(ca))


@pytest.mark.usefixtures("no_system_store")
def test_a_server_that_verifies_has_the_systems_store_too(
    ca: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    options = TlsContextOptions.default_server(*identity(ca.issue_cert(HOST)))
    options.set_verify_peer(True)
    server = TlsContext.server(options)
    assert not refused(presenting_client(ca, ca), server)
    assert refused(presenting_client(ca, trustme.CA()), server)


@pytest.mark.usefixtures("no_system_store")
def test_an_overridden_store_is_not_trusted_any_more(
    ca: trustme.CA, ca_file: Path, ca_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_folder))
    other = trustme.CA()
    assert refused(client_of(other), server_of(ca))
    assert not refused(client_of(other), server_of(other))
    assert refused(presenting_client(ca, ca), asking_server(ca, other))


def test_override_by_a_file(ca: trustme.CA, ca_file: Path) -> None:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store_from_path(ca_file=ca_file)
    ca_file.unlink()  # it has been read
    client = TlsContext.client(options)
    assert not refused(client, server_of(ca))
    assert refused(client, server_of(trustme.CA()))


def test_override_by_a_folder(ca: trustme.CA, ca_folder: Path) -> None:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store_from_path(str(ca_folder))
    client = TlsContext.client(options)
    assert not refused(client, server_of(ca))
    assert refused(client, server_of(trustme.CA()))


def test_override_by_a_folder_and_a_file(ca: trustme.CA, ca_folder: Path, tmp_path: Path) -> None:
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    options = TlsContextOptions.default_client()
    options.override_default_trust_store_from_path(ca_folder, tmp_path / "other.pem")
    client = TlsContext.client(options)
    assert not refused(client, server_of(ca))
    assert not refused(client, server_of(other))
    assert refused(client, server_of(trustme.CA()))


def test_a_store_is_overridden_once(ca: trustme.CA, ca_file: Path) -> None:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store_from_path(ca_path=ca_file.parent, ca_file=ca_file)
    with pytest.raises(errors.InvalidStateError, match="overridden already"):
        options.override_default_trust_store(ca.cert_pem.bytes())
    with pytest.raises(errors.InvalidStateError, match="overridden already"):
        options.override_default_trust_store_from_path(ca_file=ca_file)
    with pytest.raises(errors.InvalidStateError, match="overridden already"):
        options.override_default_trust_store_from_path(ca_path=ca_file.parent)


def test_what_is_no_store_is_refused(ca_file: Path) -> None:
    options = TlsContextOptions.default_client()
    override = options.override_default_trust_store_from_path
    with pytest.raises(TypeError, match="ca_path"):
        override()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        override(ca_file=ca_file.parent / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        override(ca_path=ca_file.parent / "nowhere", ca_file=ca_file)
    with pytest.raises(NotADirectoryError):
        override(ca_path=ca_file)
    ca_file.write_text("no certificate")
    with pytest.raises(errors.PemMalformedError, match=r"trust store .*ca\.pem"):
        override(ca_path=ca_file.parent, ca_file=ca_file)
    with pytest.raises(errors.PemMalformedError, match="trust store"):
        options.override_default_trust_store(b"")
    assert options.settings == TlsContextOptions.default_client().settings
