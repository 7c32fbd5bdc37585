"""What a socket is made of: domain, type, options and endpoints, and what makes them valid.

No I/O but `setsockopt`. The rules are those of aws-c-io's socket.h and its posix implementation,
in two points stricter: an option that the kernel refuses raises instead of being logged, and
SO_REUSEADDR is for stream sockets only, because datagram sockets that have it share their port
with whoever asks for it. In one point it is wider: an IPv6 endpoint may carry a zone, as link-local
addresses need.
"""

import enum
import operator
import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

from . import errors
from .errors import CommonErrorCode, ErrorCode

NETWORK_INTERFACE_NAME_MAX = 15
"""Bytes that the name of a network interface may have (IFNAMSIZ less the end)."""

LOCAL_ADDRESS_MAX = 107 if sys.platform == "linux" else 103
"""Bytes that the path of a local socket may have (sun_path less the end)."""

VSOCK_CID_ANY = 0xFFFF_FFFF
"""VMADDR_CID_ANY, written "-1" in an endpoint's address."""

_MAX_UINT16 = 0xFFFF
_MAX_UINT32 = 0xFFFF_FFFF


class SocketDomain(enum.Enum):
    """What the addresses of a socket are."""

    IPV4 = enum.auto()
    IPV6 = enum.auto()
    LOCAL = enum.auto()
    """Unix domain: an address is a path."""
    VSOCK = enum.auto()
    """Between virtual machines: an address is a context id in decimal. Linux only."""


class SocketType(enum.Enum):
    """What travels over a socket."""

    STREAM = enum.auto()
    DGRAM = enum.auto()
    """Datagrams; for IPV4 and IPV6 only."""


_FAMILIES = {
    SocketDomain.IPV4: socket.AF_INET,
    SocketDomain.IPV6: socket.AF_INET6,
    SocketDomain.LOCAL: socket.AF_UNIX,
}
if hasattr(socket, "AF_VSOCK"):
    _FAMILIES[SocketDomain.VSOCK] = socket.AF_VSOCK

_IP_BOUND_IF, _IPV6_BOUND_IF = 25, 125
"""Of macOS; the socket module has no names for them."""

_TCP_KEEPIDLE: int = getattr(socket, "TCP_KEEPIDLE", 0) or getattr(socket, "TCP_KEEPALIVE", 0)
"""macOS has its own name for it."""

_KINDS = {SocketType.STREAM: socket.SOCK_STREAM, SocketType.DGRAM: socket.SOCK_DGRAM}


@dataclass(frozen=True)
class SocketEndpoint:
    """One end of a connection.

    `address` is an IPv4 or IPv6 literal (names are for the resolver), the path of a LOCAL socket,
    or the context id of a VSOCK one ("-1" for any). The zone of a link-local IPv6 address is the
    name or the number of an interface: "fe80::1%eth0"; of addresses that sockets tell, the number.
    `port` is ignored for LOCAL. Whether it is valid depends on the socket's domain, and is checked
    by `connect` and `bind`.
    """

    address: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" if self.port else self.address


@dataclass(frozen=True)
class SocketOptions:
    """How to make a socket. Raises IO_SOCKET_INVALID_OPTIONS if a value is not valid.

    - `connect_timeout`: seconds that `connect` may take; then IO_SOCKET_TIMEOUT.
    - `keep_alive`: probe a silent peer (TCP only).
    - `keep_alive_interval`, `keep_alive_timeout`: seconds of silence before the first probe, and
      between probes. Both or neither: with a 0 the system's defaults stay.
    - `keep_alive_max_failed_probes`: unanswered probes until the connection is lost; 0 as above.
    - `tcp_nodelay`: send small writes at once; None leaves the system's default (TCP only).
    - `network_interface_name`: send and receive by this interface only, such as "eth0".
    """

    type: SocketType = SocketType.STREAM
    domain: SocketDomain = SocketDomain.IPV4
    connect_timeout: float = 3.0
    keep_alive: bool = False
    keep_alive_interval: int = 0
    keep_alive_timeout: int = 0
    keep_alive_max_failed_probes: int = 0
    tcp_nodelay: bool | None = True
    network_interface_name: str = ""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise IO_SOCKET_INVALID_OPTIONS, naming the option, if a value is not valid."""
        if not isinstance(self.type, SocketType):
            raise _invalid(f"type must be a SocketType, not {self.type!r}")
        if not isinstance(self.domain, SocketDomain):
            raise _invalid(f"domain must be a SocketDomain, not {self.domain!r}")
        if self.type is SocketType.DGRAM and self.domain not in (
            SocketDomain.IPV4,
            SocketDomain.IPV6,
        ):
            raise _invalid(f"type DGRAM is for IPV4 and IPV6, not for {self.domain.name}")
        if not 0 < self.connect_timeout < float("inf"):
            raise _invalid(f"connect_timeout must be positive seconds, not {self.connect_timeout}")
        for name in ("keep_alive_interval", "keep_alive_timeout", "keep_alive_max_failed_probes"):
            value = getattr(self, name)
            if not isinstance(value, int) or not 0 <= value <= _MAX_UINT16:
                raise _invalid(f"{name} must be an integer from 0 to {_MAX_UINT16}, not {value!r}")
        name = self.network_interface_name
        size = _size(name)
        if size is None or size > NETWORK_INTERFACE_NAME_MAX or "\0" in name:
            raise _invalid(
                f"network_interface_name {name!r} is not a name of "
                f"at most {NETWORK_INTERFACE_NAME_MAX} bytes"
            )

    def require_same_kind(self, other: "SocketOptions") -> None:
        """Raise IO_SOCKET_INVALID_OPTIONS if `other` are for sockets of another domain or type."""
        if (self.domain, self.type) != (other.domain, other.type):
            raise _invalid(
                f"{other.domain.name} {other.type.name} for a socket that is "
                f"{self.domain.name} {self.type.name}"
            )

    def apply(self, sock: socket.socket) -> None:
        """Set these options on `sock`; `domain` and `type` must be the socket's own.

        Raises IO_SOCKET_INVALID_OPTIONS, naming the option or the interface, if the kernel refuses
        one. Any thread.
        """
        if self.type is SocketType.STREAM:
            _set(sock, "SO_REUSEADDR", socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.network_interface_name:
            _bind_to_interface(sock, self.network_interface_name, self.domain)
        if self.type is SocketType.STREAM and self.domain in (SocketDomain.IPV4, SocketDomain.IPV6):
            self._apply_tcp(sock)

    def _apply_tcp(self, sock: socket.socket) -> None:
        tcp = socket.IPPROTO_TCP
        if self.tcp_nodelay is not None:
            _set(sock, "TCP_NODELAY", tcp, socket.TCP_NODELAY, int(self.tcp_nodelay))
        _set(sock, "SO_KEEPALIVE", socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(self.keep_alive))
        if self.keep_alive_interval and self.keep_alive_timeout:
            _set(sock, "keep_alive_interval", tcp, _TCP_KEEPIDLE, self.keep_alive_interval)
            _set(sock, "keep_alive_timeout", tcp, socket.TCP_KEEPINTVL, self.keep_alive_timeout)
        probes = self.keep_alive_max_failed_probes
        if probes:
            _set(sock, "keep_alive_max_failed_probes", tcp, socket.TCP_KEEPCNT, probes)


def options_of(sock: socket.socket) -> SocketOptions:
    """The domain and type of `sock` as options that leave all else as it is.

    Raises IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY, IO_SOCKET_INVALID_OPTIONS.
    """
    domains = {family: domain for domain, family in _FAMILIES.items()}
    kinds = {kind: type_ for type_, kind in _KINDS.items()}
    try:
        domain, type_ = domains[socket.AddressFamily(sock.family)], kinds[sock.type]
    except (KeyError, ValueError):
        raise errors.make(ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY, repr(sock)) from None
    return SocketOptions(type=type_, domain=domain, tcp_nodelay=None)


def create(options: SocketOptions) -> socket.socket:
    """A new non-blocking OS socket with `options`. Raises what `socket()` and `apply` raise."""
    if not isinstance(options, SocketOptions):
        raise TypeError(f"options must be SocketOptions, not {options!r}")
    if options.domain not in _FAMILIES:
        raise errors.make(
            ErrorCode.IO_SOCKET_UNSUPPORTED_ADDRESS_FAMILY,
            f"this platform has no {options.domain.name} sockets",
        )
    detail = f"{options.domain.name} {options.type.name} socket"
    try:
        sock = socket.socket(_FAMILIES[options.domain], _KINDS[options.type])
    except OSError as exc:
        raise errors.translate(exc, detail) from exc
    try:
        sock.setblocking(False)
        options.apply(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def is_network_interface_name_valid(name: str) -> bool:
    """Whether this machine has a network interface of that name. Any thread."""
    try:
        socket.if_nametoindex(name)
    except (OSError, ValueError):
        return False
    return True


def validate_port_for_connect(port: int, domain: SocketDomain) -> None:
    """Raise IO_SOCKET_INVALID_ADDRESS if `port` cannot be connected to.

    IPV4 and IPV6: 1 to 65535. VSOCK: any 32 bits but VMADDR_PORT_ANY. LOCAL: not looked at.
    """
    validate_port_for_bind(port, domain)
    if port == 0 and domain in (SocketDomain.IPV4, SocketDomain.IPV6):
        raise _invalid_address(f"port 0 for {domain.name}: connect to 1-{_MAX_UINT16}")
    if port == _MAX_UINT32 and domain is SocketDomain.VSOCK:
        raise _invalid_address(f"port {port} for VSOCK: VMADDR_PORT_ANY is for bind only")


def validate_port_for_bind(port: int, domain: SocketDomain) -> None:
    """Raise IO_SOCKET_INVALID_ADDRESS if `port` cannot be bound to.

    IPV4 and IPV6: 0 (any) to 65535. VSOCK: any 32 bits. LOCAL: not looked at. TypeError for what is
    no whole number.
    """
    if domain is SocketDomain.LOCAL:
        return
    if domain not in (SocketDomain.IPV4, SocketDomain.IPV6, SocketDomain.VSOCK):
        raise _invalid_address(f"port {port}: {domain!r} is no SocketDomain")
    limit = _MAX_UINT32 if domain is SocketDomain.VSOCK else _MAX_UINT16
    if not 0 <= operator.index(port) <= limit:
        raise _invalid_address(f"port {port} for {domain.name}: it is at most {limit}")


def parse_ipv4_address(address: str) -> bytes:
    """The 4 bytes, in network order, of an IPv4 literal. Raises IO_SOCKET_INVALID_ADDRESS."""
    return _parse(socket.AF_INET, address, "IPv4")


def parse_ipv6_address(address: str) -> bytes:
    """The 16 bytes of an IPv6 literal, without a zone. Raises IO_SOCKET_INVALID_ADDRESS."""
    return _parse(socket.AF_INET6, address, "IPv6")


def _parse(family: socket.AddressFamily, address: str, what: str) -> bytes:
    try:
        return socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise _invalid_address(f"{address!r} is no {what} address{_hint(address)}") from None


def _hint(address: str) -> str:
    """What to do about something that is perhaps a path or a name."""
    if "/" in address:
        return ": a path needs SocketDomain.LOCAL"
    is_like_a_name = ":" not in address and any(map(str.isalpha, address))
    return ", and names are not looked up here" if is_like_a_name else ""


def check_endpoint(endpoint: object) -> None:
    """Raise TypeError for what is none."""
    if not isinstance(endpoint, SocketEndpoint):
        raise TypeError(f"an address is a SocketEndpoint here, not {endpoint!r}")


def to_sockaddr(endpoint: SocketEndpoint, domain: SocketDomain) -> Any:
    """The address that the socket module takes; it never makes libc look up a name.

    Raises IO_SOCKET_INVALID_ADDRESS, and ERROR_FILE_INVALID_PATH for an empty path.
    """
    if domain is SocketDomain.IPV4:
        parse_ipv4_address(endpoint.address)
        return endpoint.address, endpoint.port
    if domain is SocketDomain.IPV6:
        address, percent, zone = endpoint.address.partition("%")
        parse_ipv6_address(address)
        return address, endpoint.port, 0, _parse_zone(zone, endpoint.address) if percent else 0
    if domain is SocketDomain.LOCAL:
        return _check_path(endpoint.address)
    return _parse_cid(endpoint.address), endpoint.port


def from_sockaddr(address: Any, domain: SocketDomain) -> SocketEndpoint | None:
    """What `getsockname`, `getpeername` or `accept` said; None for a LOCAL end without a path."""
    if domain is SocketDomain.LOCAL:
        return SocketEndpoint(os.fsdecode(address)) if address else None
    host, port, *flow_and_zone = address
    zone = flow_and_zone[1] if flow_and_zone else 0
    return SocketEndpoint(f"{host}%{zone}" if zone else str(host), port)


def own_endpoint(sock: socket.socket, domain: SocketDomain) -> SocketEndpoint | None:
    """The local end of `sock`, if it has one."""
    try:
        return from_sockaddr(sock.getsockname(), domain)
    except OSError:  # reset in the meantime; macOS says EINVAL then
        return None


def peer_endpoint(sock: socket.socket, domain: SocketDomain) -> SocketEndpoint | None:
    """The remote end of `sock`, if it has one."""
    try:
        return from_sockaddr(sock.getpeername(), domain)
    except OSError:  # not connected (any more)
        return None


def _parse_zone(zone: str, address: str) -> int:
    number = _number(zone)
    if number is not None:
        return number
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError):
        raise _invalid_address(f"{address!r}: there is no interface {zone!r}") from None


def _check_path(path: str) -> str:
    """A name of Linux's abstract namespace begins with NUL; elsewhere there must be none."""
    if not path:
        raise errors.make(CommonErrorCode.ERROR_FILE_INVALID_PATH, "a LOCAL socket needs a path")
    size = _size(path)
    if size is None or size > LOCAL_ADDRESS_MAX:
        raise _invalid_address(f"{path!r} is no path of at most {LOCAL_ADDRESS_MAX} bytes")
    if "\0" in path[1:]:
        raise _invalid_address(f"{path!r} has a NUL in it")
    return path


def _parse_cid(address: str) -> int:
    if address == "-1":
        return VSOCK_CID_ANY
    number = _number(address)
    if number is not None:
        return number
    raise _invalid_address(f"{address!r} is no VSOCK context id")


def _number(text: str) -> int | None:
    """32 bits in decimal; None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text.lstrip("0")) <= len(f"{_MAX_UINT32}")):
        return None
    number = int(text.lstrip("0") or "0")  # int() counts zeros among the digits that it takes
    return number if number <= _MAX_UINT32 else None


def _size(name: str) -> int | None:
    """In bytes; None for a name that no file of this system can have."""
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:
        return None


def _bind_to_interface(sock: socket.socket, name: str, domain: SocketDomain) -> None:
    option = f"network_interface_name {name!r}"
    if sys.platform == "darwin":  # by number
        try:
            index = socket.if_nametoindex(name)
        except OSError as exc:
            raise _invalid(f"{option}: {exc.strerror}") from exc
        if domain is SocketDomain.IPV6:
            _set(sock, option, socket.IPPROTO_IPV6, _IPV6_BOUND_IF, index)
        else:
            _set(sock, option, socket.IPPROTO_IP, _IP_BOUND_IF, index)
    elif hasattr(socket, "SO_BINDTODEVICE"):
        _set(sock, option, socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(name))
    else:
        raise errors.make(CommonErrorCode.ERROR_PLATFORM_NOT_SUPPORTED, option)


def _set(sock: socket.socket, option: str, level: int, number: int, value: int | bytes) -> None:
    try:
        sock.setsockopt(level, number, value)
    except OSError as exc:
        shown = f" {value}" if isinstance(value, int) else ""
        raise _invalid(f"{option}{shown}: {exc.strerror}") from exc


def _invalid(detail: str) -> errors.AwsIoError:
    return errors.make(ErrorCode.IO_SOCKET_INVALID_OPTIONS, detail)


def _invalid_address(detail: str) -> errors.AwsIoError:
    return errors.make(ErrorCode.IO_SOCKET_INVALID_ADDRESS, detail)
