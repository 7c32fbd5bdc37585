"""A TLS connection as the application's protocol sees it."""

import asyncio
import warnings
from asyncio import constants
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._flow_control import WriteFlowControl
from ._socket_tools import Buffer, checked

if TYPE_CHECKING:
    from ._tls_protocol import TlsProtocol


class SslTransport(asyncio.Transport):
    """The transport of a TLS connection, by the name that asyncio and its users give to TLS.

    Thread: the loop's.

    As in asyncio, TLS has no half-closed connections: there is no `write_eof`, and a connection
    whose peer has said close_notify is closed after `eof_received`.
    """

    __slots__ = ("__dict__", "__weakref__", "_tls")  # a dict: see SocketTransport

    _start_tls_compatible = True  # asked by loop.start_tls(), asyncio's own included
    _sendfile_compatible = constants._SendfileMode.FALLBACK  # asked by asyncio's loop.sendfile()

    def __init__(self, tls: "TlsProtocol") -> None:
        self._tls = tls

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._tls!r}>"

    def __del__(self) -> None:
        if not self._tls._closing and self._tls._lower is not None:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)

    @property
    def _flow(self) -> WriteFlowControl:
        return self._tls._flow

    @property
    def _protocol_paused(self) -> bool:  # asked by asyncio's loop.sendfile()
        return self._tls._flow.paused

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._tls.set_app_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._tls.get_protocol()  # type: ignore[no-any-return]  # any class may be one

    def is_reading(self) -> bool:
        return self._tls.is_reading()

    def pause_reading(self) -> None:
        self._tls.pause_reading()

    def resume_reading(self) -> None:
        self._tls.resume_reading()

    def write(self, data: Buffer) -> None:
        if type(data) is not bytes:
            data = checked(data)
        if data:
            self._tls.write(data)

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        self.write(b"".join(map(checked, list_of_data)))  # one piece makes fewer records

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("TLS connections cannot be closed for writing only: use close()")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tls.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._tls._flow.low, self._tls._flow.high

    def get_write_buffer_size(self) -> int:
        return self._tls.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._tls._closing

    def close(self) -> None:
        self._tls.close()

    def abort(self) -> None:
        self._tls.abort()
