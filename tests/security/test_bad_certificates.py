"""Bad certificates, on all ways in: transports, channels, `connect`; each with its verify code."""

import asyncio
import ssl
from collections.abc import Callable
from functools import cache

import pytest

from aws_io_async import AwsIoError, TlsConnectionOptions, TlsContext, TlsContextOptions, connect
from aws_io_async.errors import TlsCertificateError, translate
from tests.certificates import Identity
from tests.faults._report import Fault
from tests.security.bad_certificates import TABLE, TRUSTED, Bad, leaf
from tests.tls_channels import connecting, error_of, lenient_server, listening
from tests.tls_peers import HOST

PRESENTED = Fault(
    "Input",
    "a server presents one of the table of bad certificates",
    "refused with OpenSSL's verify code, before a byte is sent",
)


@cache
def presented(name: str) -> Identity:
    return TABLE[name].make().identity


@cache
def client() -> TlsContext:
    options = TlsContextOptions.default_client()
    options.override_default_trust_store(b"".join(trusted().pem for trusted in TRUSTED))
    return TlsContext(options)


every = pytest.mark.parametrize("name", TABLE)


def check(bad: Bad, error: AwsIoError) -> None:
    assert isinstance(error, TlsCertificateError)
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_code == bad.verify_code
    assert error.code is bad.code
    assert f"(OpenSSL verify code {bad.verify_code})" in str(error)
    PRESENTED.seen("refused with the verify code")


@every
async def test_on_transports(name: str) -> None:
    """`create_connection(ssl=)`, with a context of ours."""
    bad, loop = TABLE[name], asyncio.get_running_loop()
    received = bytearray()

    class Server(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

    server_context = lenient_server(presented(name)).ssl_context
    server = await loop.create_server(Server, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await loop.create_connection(
                asyncio.Protocol,
                "127.0.0.1",
                port,
                ssl=client().ssl_context,
                server_hostname=bad.name,
            )
        assert caught.value.verify_code == bad.verify_code
        translated = translate(caught.value)
        assert translated.code is bad.code
    assert not received
    PRESENTED.seen("refused with the verify code")


@every
async def test_on_channels(name: str) -> None:
    bad = TABLE[name]
    options = TlsConnectionOptions(client(), bad.name)
    async with listening(lenient_server(presented(name))) as listener:
        check(bad, await error_of(connecting(listener, options).__aenter__()))
        await listener.failed()
        assert listener.channels == []


@every
async def test_on_connect(name: str) -> None:
    bad = TABLE[name]
    options = TlsConnectionOptions(client(), bad.name)
    async with listening(lenient_server(presented(name))) as listener:
        check(bad, await error_of(connect("127.0.0.1", listener.port, tls=options)))
        await listener.failed()


GOOD: dict[str, tuple[Callable[[], Identity], str]] = {
    "the host's name": (lambda: leaf(HOST).identity, HOST),
    "in capitals": (lambda: leaf(HOST.upper()).identity, HOST),
    "one of many": (lambda: leaf("a.example", "b.example", HOST).identity, HOST),
    "a wildcard for one label": (lambda: leaf(f"*.{HOST}").identity, f"www.{HOST}"),
}


@pytest.mark.parametrize("which", GOOD)
async def test_the_same_with_nothing_wrong(which: str) -> None:
    """Else all of the above could be refused for another reason."""
    make, name = GOOD[which]
    async with (
        listening(lenient_server(make())) as listener,
        await connect("127.0.0.1", listener.port, tls=TlsConnectionOptions(client(), name)),
    ):
        await listener.accepted()
