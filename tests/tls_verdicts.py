"""Whether a client's channel and a server's come to terms over sockets, or with what errors not."""

from aws_io_async.errors import AwsIoError
from aws_io_async.tls_context import TlsConnectionOptions, TlsContext, TlsContextOptions
from tests.tls_channels import App, connecting, error_of, listening, tls_of
from tests.tls_peers import HOST

HTTP = "http/1.1"


async def accepted(options: TlsContextOptions, server: TlsContext, protocol: str = HTTP) -> str:
    """Negotiate, send something both ways, and end; returns the version that was agreed on."""
    client = TlsConnectionOptions(TlsContext.client(options), HOST, alpn_list=protocol)
    ours, theirs = App(), App()
    async with (
        listening(server, lambda: [theirs]) as listener,
        connecting(listener, client, lambda: [ours]) as channel,
    ):
        await listener.accepted()
        assert tls_of(channel).server_name == HOST
        assert tls_of(channel).protocol == protocol
        await ours.write(b"hello")
        assert await theirs.received(5) == b"hello"
        await theirs.write(b"and back")
        assert await ours.received(8) == b"and back"
        version = tls_of(channel).ssl_object.version()
        assert version is not None
        channel.shutdown()
        assert await listener.ended() is None
        await channel.wait_closed()
        assert channel.error is None
        return version


async def refused(options: TlsContextOptions, server: TlsContext) -> tuple[AwsIoError, AwsIoError]:
    """What a client refuses a server with, and what the server learns of it."""
    client = TlsConnectionOptions(TlsContext.client(options), HOST)
    async with listening(server) as listener:
        error = await error_of(connecting(listener, client).__aenter__())
        theirs = await listener.failed()
        assert listener.channels == []
        assert listener.shutdowns == []
        assert f"127.0.0.1:{listener.port}" in str(error)
        assert isinstance(theirs, AwsIoError)
        return error, theirs
