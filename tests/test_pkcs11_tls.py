"""Keys in tokens for TLS: URIs, PEM files that hold one, and handshakes by OpenSSL's provider.

The handshakes need pkcs11-provider, which Debian has since version 13 and Fedora since 38. It is
looked for where OpenSSL keeps its modules, and at TEST_PKCS11_PROVIDER.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from aws_io_async import pem, pkcs11
from tests.hsm import Hsm, softhsm

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

# URIs and PEM files


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (pkcs11.key_uri("my-key"), "pkcs11:object=my-key;type=private"),
        (
            pkcs11.key_uri("my-key", token_label="my-token", slot_id=7),
            "pkcs11:slot-id=7;token=my-token;object=my-key;type=private",
        ),
        (pkcs11.key_uri(slot_id=0), "pkcs11:slot-id=0;type=private"),
        (pkcs11.key_uri("a;b c?/\xe9"), "pkcs11:object=a%3Bb%20c%3F%2F%C3%A9;type=private"),
        (pkcs11.key_uri("k", pin="12&4"), "pkcs11:object=k;type=private?pin-value=12%264"),
        (
            pkcs11.key_uri("k", pin_source="file:/run/pin"),
            "pkcs11:object=k;type=private?pin-source=file:%2Frun%2Fpin",
        ),
    ],
)
def test_uris_of_keys(uri: str, expected: str) -> None:
    assert uri == expected


def test_what_is_no_uri_of_a_key() -> None:
    with pytest.raises(ValueError, match="name the key"):
        pkcs11.key_uri()
    with pytest.raises(ValueError, match="either"):
        pkcs11.key_uri("k", pin="1", pin_source="file:/run/pin")
    with pytest.raises(ValueError, match="no PKCS#11 URI"):
        pkcs11.key_pem("file:/run/key")


def test_a_pem_file_holds_the_uri() -> None:
    uri = pkcs11.key_uri("my-key" * 40, token_label="my-token")
    (found,) = pem.parse(pkcs11.key_pem(uri))
    assert found.type_string == "PKCS#11 PROVIDER URI"
    decoded = subprocess.run(
        ["openssl", "asn1parse", "-inform", "DER"],
        input=found.data,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout.decode()
    assert "VISIBLESTRING     :PKCS#11 Provider URI v1.0" in decoded
    assert f"UTF8STRING        :{uri}" in decoded


def test_a_provider_that_is_not_there_is_named() -> None:
    """In a process of its own, whose OpenSSL is configured by that."""
    script = """
        from aws_io_async import pkcs11
        from aws_io_async.errors import AwsIoError
        try:
            pkcs11.load_provider("/module.so", "/nowhere.so")
        except AwsIoError as exc:
            print(exc.name, exc.detail)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert done.stdout.startswith("AWS_IO_TLS_CTX_ERROR OpenSSL cannot load the provider /nowhere")


# Handshakes

HANDSHAKE = """
import asyncio, ssl, sys
from aws_io_async import pkcs11

module, provider, folder, token, key, version = sys.argv[1:]
if provider:
    pkcs11.load_provider(module, provider)
name = f"{folder}/key.pem"
with open(name, "w") as file:
    file.write(pkcs11.key_pem(pkcs11.key_uri(key, token_label=token, pin="0000")))

server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(f"{folder}/server.pem")
server.load_verify_locations(f"{folder}/ca.pem")
server.verify_mode = ssl.CERT_REQUIRED
client = ssl.create_default_context(cafile=f"{folder}/ca.pem")
client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
for context in (ssl.create_default_context(), client):  # several may have the key
    context.load_cert_chain(f"{folder}/client.pem", name)
del context

async def handle(reader, writer):
    peer, tls = writer.get_extra_info("peercert"), writer.get_extra_info("ssl_object")
    writer.write(f"{tls.version()} {peer['subjectAltName']}".encode())
    writer.close()
    await writer.wait_closed()

async def main():
    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server)
    port = listener.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client,
                                                   server_hostname="server.example")
    print((await reader.read()).decode())
    writer.close()
    await writer.wait_closed()
    listener.close()

asyncio.run(main())
"""


def provider() -> str:
    """pkcs11-provider; skips the test without."""
    named = os.environ.get("TEST_PKCS11_PROVIDER")
    if named is None:
        told = subprocess.run(
            ["openssl", "version", "-m"], capture_output=True, text=True, check=False, timeout=30
        ).stdout
        folder = told.partition('"')[2].rpartition('"')[0]
        named = os.path.join(folder, "pkcs11.so")
    if not os.path.exists(named):
        pytest.skip("OpenSSL's PKCS#11 provider is not installed (Debian 13: pkcs11-provider)")
    return named


def handshake(
    hsm: Hsm, key: str, version: str, *, provider: str, configuration: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """A client whose key is in the token, and a server that wants its certificate."""
    folder = str(hsm.configuration.parent)
    return subprocess.run(
        [sys.executable, "-c", HANDSHAKE, hsm.module, provider, folder, "my-token", key, version],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={
            **ENVIRONMENT,
            "SOFTHSM2_CONF": str(hsm.configuration),
            **({"OPENSSL_CONF": configuration} if configuration else {}),
        },
    )


@pytest.fixture
def hsm(tmp_path: Path) -> Hsm:
    hsm = Hsm(softhsm(), tmp_path)
    hsm.init_token("my-token", "0000", "1111")
    return hsm


def identity(hsm: Hsm, kind: trustme.KeyType) -> None:
    """Certificates for both sides; the client's key is in the token only."""
    folder, ca = hsm.configuration.parent, trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.issue_cert("server.example").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    client = ca.issue_cert("client.example", key_type=kind)
    (folder / "client.pem").write_bytes(b"".join(b.bytes() for b in client.cert_chain_pems))
    key = load_pem_private_key(client.private_key_pem.bytes(), None)
    hsm.import_key("my-token", "0000", key, "my-key", "AA")


def check_negotiation(hsm: Hsm, kind: trustme.KeyType) -> None:
    identity(hsm, kind)
    for version in ("TLSv1_2", "TLSv1_3"):
        done = handshake(hsm, "my-key", version, provider=provider())
        assert done.returncode == 0, done.stderr
        assert version.replace("_", ".") in done.stdout
        assert "client.example" in done.stdout


def test_an_rsa_key_by_the_provider(hsm: Hsm) -> None:
    check_negotiation(hsm, trustme.KeyType.RSA)


def test_an_ec_key_by_the_provider(hsm: Hsm) -> None:
    check_negotiation(hsm, trustme.KeyType.ECDSA)


def test_a_configuration_file_does_what_load_provider_does(hsm: Hsm) -> None:
    identity(hsm, trustme.KeyType.ECDSA)
    path = hsm.configuration.with_name("openssl.cnf")
    path.write_text(pkcs11.provider_configuration(hsm.module, provider()))
    done = handshake(hsm, "my-key", "TLSv1_3", provider="", configuration=str(path))
    assert "client.example" in done.stdout, done.stderr


def test_a_key_that_is_not_in_the_token_cannot_be_loaded(hsm: Hsm) -> None:
    identity(hsm, trustme.KeyType.ECDSA)
    done = handshake(hsm, "another-key", "TLSv1_3", provider=provider())
    assert done.returncode == 1
    assert done.stdout == ""


def test_without_the_provider_openssl_cannot_read_the_key(hsm: Hsm) -> None:
    identity(hsm, trustme.KeyType.ECDSA)
    done = handshake(hsm, "my-key", "TLSv1_3", provider="")
    assert done.returncode == 1
    assert "SSLError" in done.stderr
