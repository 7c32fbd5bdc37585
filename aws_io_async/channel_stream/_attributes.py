"""What is known about a connection, by the typed attributes that anyio's streams have."""

import ssl
from collections.abc import Callable
from typing import Any

from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSAttribute

from ..socket_channel_handler import SocketChannelHandler


class Ends:
    """A socket and its addresses, which some loops forget once it is closed."""

    def __init__(self, sock: Any, local: Any, remote: Any) -> None:
        self._socket = sock
        self._local = _with_zone(local)
        self._remote = _with_zone(remote)

    @classmethod
    def of(cls, handler: SocketChannelHandler) -> "Ends | None":
        """Those of a handler; None before it has a transport."""
        try:
            about = handler.transport.get_extra_info
        except RuntimeError:
            return None
        return cls(about("socket"), about("sockname"), about("peername"))

    def attributes(self) -> dict[Any, Callable[[], Any]]:
        """As anyio's sockets have them."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: self._socket.family,
            SocketAttribute.raw_socket: lambda: self._socket,
            SocketAttribute.local_address: lambda: self._local,
        }
        if self._remote is not None:  # not even reset before it could be asked for
            attributes[SocketAttribute.remote_address] = lambda: self._remote
        if isinstance(self._local, tuple):
            attributes[SocketAttribute.local_port] = lambda: self._local[1]
        if isinstance(self._remote, tuple):
            attributes[SocketAttribute.remote_port] = lambda: self._remote[1]
        return attributes


def _with_zone(address: Any) -> Any:
    """Host and port, with the zone of an IPv6 address in the host, as anyio has it."""
    if not isinstance(address, tuple):
        return address
    host, port, *rest = address
    zone = rest[1] if len(rest) == 2 else 0
    return (f"{host.partition('%')[0]}%{zone}" if zone else host), port


def tls_attributes(connection: ssl.SSLObject) -> dict[Any, Callable[[], Any]]:
    return {
        TLSAttribute.alpn_protocol: connection.selected_alpn_protocol,
        TLSAttribute.channel_binding_tls_unique: connection.get_channel_binding,
        TLSAttribute.cipher: connection.cipher,
        TLSAttribute.peer_certificate: lambda: connection.getpeercert(False),
        TLSAttribute.peer_certificate_binary: lambda: connection.getpeercert(True),
        TLSAttribute.server_side: lambda: connection.server_side,
        TLSAttribute.shared_ciphers: connection.shared_ciphers,
        TLSAttribute.ssl_object: lambda: connection,
        TLSAttribute.standard_compatible: lambda: True,
        TLSAttribute.tls_version: connection.version,
    }
