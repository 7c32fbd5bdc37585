"""TLS contexts, by the handshakes that they let through and those that they refuse."""

import asyncio
import concurrent.futures
import ssl
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from aws_io_async import errors
from aws_io_async.errors import ErrorCode
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import (
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    is_alpn_available,
)
from tests.certificates import FOR_CLIENTS, FOR_SERVERS, identity, issue
from tests.tls_peers import (
    HOST,
    asking_server,
    client_of,
    handshake,
    presenting_client,
    server_of,
    trusting,
)


@pytest.fixture
def server(ca: trustme.CA) -> TlsContext:
    return server_of(ca)


# The server's certificate


def test_a_client_accepts_a_server_of_its_trust_store(ca: trustme.CA, server: TlsContext) -> None:
    ours, theirs = handshake(client_of(ca), server)
    ours.write(b"hello")
    theirs.receive_data(ours.data_to_send())
    assert theirs.read_available() == b"hello"


def test_the_default_client_verifies(server: TlsContext) -> None:
    client = TlsContext.client()
    assert client.verify_peer
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(client, server)
    assert errors.translate(caught.value).code is ErrorCode.IO_TLS_UNKNOWN_ROOT_CERTIFICATE


def test_a_certificate_for_another_name_is_refused(ca: trustme.CA) -> None:
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        handshake(client_of(ca), server_of(ca, "other.example"))
    assert errors.translate(caught.value).code is ErrorCode.IO_TLS_HOST_NAME_MISMATCH


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_ip_addresses_are_verified_too(ca: trustme.CA, address: str) -> None:
    options = TlsConnectionOptions(client_of(ca), address)
    handshake(options, server_of(ca, address))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(options, server_of(ca, HOST))


def test_a_dot_at_the_end_of_a_name_makes_no_difference(ca: trustme.CA, server: TlsContext) -> None:
    handshake(TlsConnectionOptions(client_of(ca), f"{HOST}."), server)


def test_without_verification_anyone_will_do(server: TlsContext) -> None:
    options = TlsContextOptions.default_client()
    options.set_verify_peer(False)
    client = TlsContext.client(options)
    assert not client.verify_peer
    handshake(TlsConnectionOptions(client, "wrong.example"), server)
    handshake(TlsConnectionOptions(client), server)


def test_a_client_verifies_even_with_the_options_of_a_server(
    ca: trustme.CA, server: TlsContext
) -> None:
    client = TlsContext.client(TlsContextOptions.default_server(*identity(ca.issue_cert(HOST))))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, server)


def test_an_intermediate_certificate_can_be_all_that_is_trusted(ca: trustme.CA) -> None:
    child = ca.create_child_ca()
    handshake(client_of(child), server_of(child))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_of(child), server_of(ca))


# The client's certificate


def test_a_server_does_not_ask_for_a_certificate(ca: trustme.CA, server: TlsContext) -> None:
    assert not server.verify_peer
    _, theirs = handshake(presenting_client(ca, ca), server)
    assert theirs.peer_certificate is None


def test_a_server_that_verifies_sees_the_certificate(ca: trustme.CA) -> None:
    clients = trustme.CA()
    server = asking_server(ca, clients)
    assert server.verify_peer
    _, theirs = handshake(presenting_client(ca, clients), server)
    assert theirs.peer_certificate is not None
    assert theirs.peer_certificate["subjectAltName"] == (("email", "client@peer.example"),)


def test_a_server_that_verifies_refuses_clients_without_a_certificate(ca: trustme.CA) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(client_of(ca), asking_server(ca, ca))


def test_a_server_that_verifies_refuses_clients_of_another_authority(ca: trustme.CA) -> None:
    stranger = trustme.CA()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(presenting_client(ca, stranger), asking_server(ca, ca))


def test_a_certificate_is_for_its_purpose_only(ca: trustme.CA) -> None:
    for_clients = issue(ca, HOST, extensions=[FOR_CLIENTS])
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(client_of(ca), TlsContext(TlsContextOptions.default_server(*for_clients)))
    for_servers = issue(ca, HOST, extensions=[FOR_SERVERS])
    handshake(client_of(ca), TlsContext(TlsContextOptions.default_server(*for_servers)))


def test_the_options_know_their_side_but_may_be_used_for_the_other(ca: trustme.CA) -> None:
    options = TlsContextOptions.default_server(*identity(ca.issue_cert(HOST)))
    assert TlsContext(options).server_side
    assert not TlsContext(options, server_side=False).server_side
    assert not TlsContext.client(options).server_side
    options = TlsContextOptions.client_mtls(*identity(ca.issue_cert(HOST)))
    assert TlsContext.server(options).server_side


def test_a_server_needs_a_certificate() -> None:
    with pytest.raises(errors.TlsContextError, match="default_server"):
        TlsContext.server(TlsContextOptions.default_client())


# Application protocols


def negotiated(client: TlsConnectionOptions, server: TlsContext) -> tuple[str | None, str | None]:
    ours, theirs = handshake(client, server)
    return ours.selected_alpn_protocol, theirs.selected_alpn_protocol


def test_alpn_is_available() -> None:
    assert is_alpn_available()


def test_the_servers_order_of_protocols_counts(ca: trustme.CA) -> None:
    options = TlsContextOptions.default_server(*identity(ca.issue_cert(HOST)))
    options.set_alpn_list("http/1.1;h2")
    server = TlsContext.server(options)
    assert server.alpn_list == ("http/1.1", "h2")
    trust = trusting(ca)
    trust.set_alpn_list(["h2", "http/1.1"])
    client = TlsConnectionOptions(TlsContext.client(trust), HOST)
    assert negotiated(client, server) == ("http/1.1", "http/1.1")


def test_a_connections_protocols_replace_those_of_the_context(
    ca: trustme.CA, server: TlsContext
) -> None:
    options = trusting(ca)
    options.set_alpn_list("h2;http/1.1")
    context = TlsContext.client(options)
    server = server.with_alpn("h2;http/1.1")
    client = TlsConnectionOptions(context, HOST)
    assert client.effective_context is context
    assert negotiated(client, server) == ("h2", "h2")
    assert negotiated(client.copy(alpn_list="http/1.1"), server) == ("http/1.1", "http/1.1")
    assert negotiated(client.copy(alpn_list=["mqtt"]), server) == (None, None)


def test_a_list_of_protocols_is_built_once(ca: trustme.CA) -> None:
    context = client_of(ca)
    assert context.alpn_list == ()
    other = context.with_alpn("h2")
    assert other.ssl_context is not context.ssl_context
    assert context.with_alpn(["h2"]) is other
    assert other.with_alpn("h2") is other
    assert context.with_alpn("mqtt") is not other


@pytest.mark.parametrize(
    "protocols",
    ["", [], ";", "h2;", "h2;;http/1.1", "h2; http/1.1", "ü", "x" * 256, ["x" * 255] * 257, "a\0"],
)
def test_protocol_lists_that_do_not_fit_are_refused(protocols: str | list[str]) -> None:
    options = TlsContextOptions.default_client()
    with pytest.raises(errors.TlsContextError, match="ALPN") as caught:
        options.set_alpn_list(protocols)
    assert caught.value.code is ErrorCode.IO_TLS_CTX_ERROR
    with pytest.raises(errors.TlsContextError):
        TlsConnectionOptions(TlsContext.client(options), HOST, alpn_list=protocols)


def test_protocols_are_strings() -> None:
    with pytest.raises(TypeError, match="b'h2'"):
        TlsContextOptions.default_client().set_alpn_list([b"h2"])  # type: ignore[list-item] # refused


def test_protocols_of_255_bytes_fit(ca: trustme.CA, server: TlsContext) -> None:
    name = "x" * 255
    client = TlsConnectionOptions(client_of(ca), HOST, alpn_list=[name])
    assert negotiated(client, server.with_alpn([name])) == (name, name)


# Frozen


def test_contexts_cannot_be_changed(ca: trustme.CA) -> None:
    context = client_of(ca)
    for name in ("ssl_context", "server_side", "verify_peer", "alpn_list", "other"):
        with pytest.raises(AttributeError):
            setattr(context, name, None)


CHANGES: list[Callable[[ssl.SSLContext], Any]] = [
    lambda context: setattr(context, "check_hostname", False),
    lambda context: setattr(context, "minimum_version", ssl.TLSVersion.TLSv1_3),
    lambda context: setattr(context, "options", 0),
    lambda context: context.set_ciphers("ALL"),
    lambda context: context.set_alpn_protocols(["h2"]),
    lambda context: context.load_default_certs(),
    lambda context: context.load_verify_locations(cadata=""),
    lambda context: context.load_cert_chain("cert.pem"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_ssl_context_of_ours_cannot_be_changed(
    ca: trustme.CA, change: Callable[[ssl.SSLContext], Any]
) -> None:
    with pytest.raises(errors.InvalidStateError, match="from_ssl_context"):
        change(client_of(ca).ssl_context)


def test_a_context_serves_many_threads(ca: trustme.CA, server: TlsContext) -> None:
    client = client_of(ca)
    threads = 8
    together = threading.Barrier(threads)

    def shake_hands(number: int) -> set[tuple[str | None, TlsContext]]:
        together.wait()
        protocol = f"p{number % 2}"
        options = TlsConnectionOptions(client, HOST, alpn_list=protocol)
        results = set()
        for _ in range(10):
            ours, _ = handshake(options, server.with_alpn("p0;p1"))
            results.add((ours.selected_alpn_protocol, options.effective_context))
        return results

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        results = set.union(*pool.map(shake_hands, range(threads)))
    assert results == {(name, client.with_alpn(name)) for name in ("p0", "p1")}


def test_tls_destroy_null_context(ca: trustme.CA) -> None:
    with pytest.raises(TypeError, match="None"):
        TlsConnectionOptions(None)  # type: ignore[arg-type] # what is refused
    context = client_of(ca)
    gone = weakref.ref(context.ssl_context)
    options = TlsConnectionOptions(context.with_alpn("h2"), HOST)
    del context
    assert gone() is None
    assert options.effective_context.alpn_list == ("h2",)


async def test_any_loop_takes_the_ssl_context(ca: trustme.CA, server: TlsContext) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    client = client_of(ca).ssl_context
    listening = await asyncio.start_server(answer, "127.0.0.1", ssl=server.ssl_context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client, server_hostname=HOST
        )
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


# SSLContexts of others


def test_from_ssl_context(ca: trustme.CA) -> None:
    client, server = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.configure_trust(client)
    ca.issue_cert(HOST).configure_cert(server)
    ours = TlsContext.from_ssl_context(client)
    theirs = TlsContext.from_ssl_context(server, server_side=True)
    assert ours.ssl_context is client
    assert (ours.server_side, ours.verify_peer) == (False, True)
    assert (theirs.server_side, theirs.verify_peer) == (True, False)
    handshake(ours, theirs)
    client.set_alpn_protocols(["h2"])  # theirs to change, as long as no connection uses it


def test_an_ssl_context_has_its_own_protocols() -> None:
    context = TlsContext.from_ssl_context(ssl.create_default_context())
    with pytest.raises(errors.TlsContextError, match="cannot be copied"):
        context.with_alpn("h2")


def test_an_ssl_context_for_the_other_side_is_refused() -> None:
    with pytest.raises(errors.TlsContextError, match="server_side=True"):
        TlsContext.from_ssl_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(errors.TlsContextError, match="server_side=False"):
        TlsContext.from_ssl_context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), True)


def test_contexts_and_ssl_contexts_are_not_mixed_up() -> None:
    context = ssl.create_default_context()
    with pytest.raises(TypeError, match="from_ssl_context"):
        TlsContext(context)  # type: ignore[arg-type] # what is refused
    with pytest.raises(TypeError, match=r"ssl\.SSLContext"):
        TlsContext.from_ssl_context(TlsContextOptions())  # type: ignore[arg-type] # what is refused


# Connections


@pytest.mark.parametrize("name", ["", ".", ".example", "a..b", "x" * 64, "a\0b"])
def test_names_that_no_server_has_are_refused(ca: trustme.CA, name: str) -> None:
    with pytest.raises(errors.TlsContextError, match="server"):
        TlsConnectionOptions(client_of(ca), name)


def test_what_is_of_a_wrong_type_is_refused_at_once(ca: trustme.CA) -> None:
    wrong: Any = 5
    context = client_of(ca)
    with pytest.raises(TypeError, match="server_name must be a str, got 5"):
        TlsConnectionOptions(context, wrong)
    for name in "on_negotiation_result", "on_data_read", "on_error":
        arguments = {name: wrong}
        with pytest.raises(TypeError, match="a callback must be callable, got 5"):
            TlsConnectionOptions(context, **arguments)
    options: Any = context
    with pytest.raises(TypeError, match="options must be TlsConnectionOptions, not <TlsContext"):
        TlsChannelHandler.client(options)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf")])
def test_timeouts_are_finite(ca: trustme.CA, timeout: float) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        TlsConnectionOptions(client_of(ca), timeout=timeout)


def test_a_copy_of_connection_options_changes_what_it_is_told(ca: trustme.CA) -> None:
    options = TlsConnectionOptions(client_of(ca), alpn_list="h2;http/1.1", timeout=0)
    copy = options.copy(server_name=HOST, timeout=2.5)
    assert copy.context is options.context
    assert (copy.server_name, copy.alpn_list, copy.timeout) == (HOST, ("h2", "http/1.1"), 2.5)
    assert (options.server_name, options.timeout) == (None, 0)
    assert TlsConnectionOptions(options.context).timeout == 10.0
    with pytest.raises(AttributeError):
        options.server_name = HOST  # type: ignore[misc] # what is refused


def test_keys_are_logged_where_the_environment_says(
    ca: trustme.CA, server: TlsContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    handshake(client_of(ca), server)
    assert "CLIENT_HANDSHAKE_TRAFFIC_SECRET" in (tmp_path / "keys").read_text()
