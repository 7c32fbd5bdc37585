"""Options, ports and addresses of sockets: what is accepted, and what the kernel gets to see."""

import socket as stdlib
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest

from aws_io_async import _socket_options
from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode
from aws_io_async.socket import (
    Socket,
    SocketDomain,
    SocketEndpoint,
    SocketOptions,
    SocketType,
    is_network_interface_name_valid,
    parse_ipv4_address,
    parse_ipv6_address,
    validate_port_for_bind,
    validate_port_for_connect,
)
from tests.socket_tools import is_open

IPV4, IPV6, LOCAL, VSOCK = SocketDomain
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
ANY_VSOCK_PORT = 0xFFFF_FFFF


def option_of(options: SocketOptions, level: int, number: int) -> int:
    """What a new socket with `options` has for a kernel option."""
    sock = Socket(options)
    try:
        with stdlib.socket(fileno=stdlib.dup(sock.fileno())) as same:
            return same.getsockopt(level, number)
    finally:
        sock.close()


# Ports


def test_socket_validate_port() -> None:
    for domain in (IPV4, IPV6):
        validate_port_for_connect(80, domain)
        validate_port_for_bind(80, domain)
        validate_port_for_bind(0, domain)
    for port in (80, 0, 0x7FFF_FFFF):
        validate_port_for_connect(port, VSOCK)
        validate_port_for_bind(port, VSOCK)
    validate_port_for_bind(ANY_VSOCK_PORT, VSOCK)
    for port in (0, 80, 0xFFFF_FFFF):
        validate_port_for_connect(port, LOCAL)
        validate_port_for_bind(port, LOCAL)


@pytest.mark.parametrize(
    ("validate", "port", "domain"),
    [
        (validate_port_for_connect, 0, IPV4),
        (validate_port_for_connect, 0, IPV6),
        (validate_port_for_connect, 0xFFFF_FFFF, IPV4),
        (validate_port_for_connect, 0xFFFF_FFFF, IPV6),
        (validate_port_for_connect, 65536, IPV4),
        (validate_port_for_connect, -1, IPV4),
        (validate_port_for_connect, ANY_VSOCK_PORT, VSOCK),
        (validate_port_for_connect, 1 << 32, VSOCK),
        (validate_port_for_bind, 0xFFFF_FFFF, IPV4),
        (validate_port_for_bind, 0xFFFF_FFFF, IPV6),
        (validate_port_for_bind, 65536, IPV6),
        (validate_port_for_bind, 1 << 32, VSOCK),
        (validate_port_for_bind, -1, VSOCK),
        (validate_port_for_connect, 80, cast(SocketDomain, -1)),
        (validate_port_for_bind, 80, cast(SocketDomain, -1)),
    ],
)
def test_ports_that_are_none(
    validate: Callable[[int, SocketDomain], None], port: int, domain: SocketDomain
) -> None:
    with pytest.raises(AwsIoError, match=str(port)) as caught:
        validate(port, domain)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS


# Addresses


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("127.0.0.1", "7f000001"),
        ("0.0.0.0", "00000000"),
        ("255.255.255.255", "ffffffff"),
        ("192.168.1.1", "c0a80101"),
        ("10.0.0.1", "0a000001"),
        ("172.16.0.1", "ac100001"),
        ("8.8.8.8", "08080808"),
        ("1.2.3.4", "01020304"),
    ],
)
def test_parse_ipv4_valid_addresses(address: str, packed: str) -> None:
    assert parse_ipv4_address(address).hex() == packed


@pytest.mark.parametrize(
    "address",
    [
        "",
        "256.1.1.1",
        "1.1.1",
        "1.1.1.1.1",
        "1.1.1.a",
        "1..1.1",
        "192.168.1.-1",
        "not.an.ip.address",
        "2001:db8::1",
        "1.2.3.4\0",
        "1.2.3.4 ",
        "\uff11.2.3.4",
    ],
)
def test_parse_ipv4_invalid_addresses(address: str) -> None:
    with pytest.raises(AwsIoError) as caught:
        parse_ipv4_address(address)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("::", "00000000000000000000000000000000"),
        ("::1", "00000000000000000000000000000001"),
        ("2001:db8:85a3::8a2e:370:7334", "20010db885a3000000008a2e03707334"),
        ("::ffff:192.168.1.1", "00000000000000000000ffffc0a80101"),
        ("fe80::1", "fe800000000000000000000000000001"),
    ],
)
def test_parse_ipv6_valid_addresses(address: str, packed: str) -> None:
    assert parse_ipv6_address(address).hex() == packed


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":::",
        "2001:db8:85a3::8a2e::7334",
        "2001:db8:85a3:0000:0000:8a2e:0370:7334:extra",
        "2001:db8:85a3:0000:0000:8a2e:0370:733g",
        "192.168.1.1",
        "not:an:ipv6:address",
        "gggg::1",
        "fe80::1%lo",
        "::1\0",
    ],
)
def test_parse_ipv6_invalid_addresses(address: str) -> None:
    with pytest.raises(AwsIoError) as caught:
        parse_ipv6_address(address)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS
    assert repr(address) in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "endpoint", "sockaddr"),
    [
        (IPV4, SocketEndpoint("127.0.0.1", 80), ("127.0.0.1", 80)),
        (IPV6, SocketEndpoint("::1", 80), ("::1", 80, 0, 0)),
        (IPV6, SocketEndpoint("fe80::1%7", 80), ("fe80::1", 80, 0, 7)),
        (IPV6, SocketEndpoint(f"fe80::1%{LOOPBACK}", 80), ("fe80::1", 80, 0, 1)),
        (LOCAL, SocketEndpoint("/tmp/x.sock"), "/tmp/x.sock"),
        (LOCAL, SocketEndpoint("\0abstract"), "\0abstract"),
        (VSOCK, SocketEndpoint("1", 8127), (1, 8127)),
        (VSOCK, SocketEndpoint("4294967295", 8127), (0xFFFF_FFFF, 8127)),
        (VSOCK, SocketEndpoint("-1", ANY_VSOCK_PORT), (0xFFFF_FFFF, ANY_VSOCK_PORT)),
    ],
)
def test_endpoints_become_addresses(
    domain: SocketDomain, endpoint: SocketEndpoint, sockaddr: Any
) -> None:
    assert _socket_options.to_sockaddr(endpoint, domain) == sockaddr


@pytest.mark.parametrize(
    ("domain", "sockaddr", "endpoint"),
    [
        (IPV4, ("127.0.0.1", 80), SocketEndpoint("127.0.0.1", 80)),
        (IPV6, ("::1", 80, 0, 0), SocketEndpoint("::1", 80)),
        (IPV6, ("fe80::1", 80, 0, 7), SocketEndpoint("fe80::1%7", 80)),
        (LOCAL, "/tmp/x.sock", SocketEndpoint("/tmp/x.sock")),
        (LOCAL, b"\0abstract", SocketEndpoint("\0abstract")),
        (LOCAL, "", None),
        (VSOCK, (1, 8127), SocketEndpoint("1", 8127)),
    ],
)
def test_addresses_become_endpoints(
    domain: SocketDomain, sockaddr: Any, endpoint: SocketEndpoint | None
) -> None:
    assert _socket_options.from_sockaddr(sockaddr, domain) == endpoint


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        (IPV4, "localhost"),
        (IPV4, "127.0"),
        (IPV4, "127.1"),
        (IPV4, "::1"),
        (IPV6, "127.0.0.1"),
        (IPV6, "[::1]"),
        (IPV6, "fe80::1%"),
        (IPV6, "fe80::1%no-such-if"),
        (LOCAL, "x" * (_socket_options.LOCAL_ADDRESS_MAX + 1)),
        (LOCAL, "é" * (_socket_options.LOCAL_ADDRESS_MAX // 2 + 1)),
        (LOCAL, "/tmp/x\0y"),
        (VSOCK, ""),
        (VSOCK, "-2"),
        (VSOCK, "4294967296"),
        (VSOCK, "2x"),
        (VSOCK, "host"),
    ],
)
def test_endpoints_that_are_none(domain: SocketDomain, address: str) -> None:
    with pytest.raises(AwsIoError) as caught:
        _socket_options.to_sockaddr(SocketEndpoint(address, 80), domain)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS
    assert isinstance(caught.value, ValueError)


def test_a_local_socket_needs_a_path() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        _socket_options.to_sockaddr(SocketEndpoint(""), LOCAL)
    assert isinstance(caught.value, AwsIoError)
    assert caught.value.code is CommonErrorCode.ERROR_FILE_INVALID_PATH


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (SocketEndpoint("127.0.0.1", 80), "127.0.0.1:80"),
        (SocketEndpoint("::1", 80), "[::1]:80"),
        (SocketEndpoint("/tmp/x.sock"), "/tmp/x.sock"),
        (SocketEndpoint("1", 8127), "1:8127"),
    ],
)
def test_endpoints_as_text(endpoint: SocketEndpoint, text: str) -> None:
    assert str(endpoint) == text


# Options


def test_defaults() -> None:
    options = SocketOptions()
    assert (options.type, options.domain) == (SocketType.STREAM, IPV4)
    assert options.connect_timeout == 3.0
    assert options.tcp_nodelay is True
    assert not options.keep_alive


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"type": "STREAM"}, "type"),
        ({"domain": "IPV4"}, "domain"),
        ({"type": SocketType.DGRAM, "domain": LOCAL}, "LOCAL"),
        ({"type": SocketType.DGRAM, "domain": VSOCK}, "VSOCK"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"connect_timeout": -1.0}, "connect_timeout"),
        ({"connect_timeout": float("nan")}, "connect_timeout"),
        ({"connect_timeout": float("inf")}, "connect_timeout"),
        ({"keep_alive_interval": -1}, "keep_alive_interval"),
        ({"keep_alive_timeout": 65536}, "keep_alive_timeout"),
        ({"keep_alive_timeout": 1.5}, "keep_alive_timeout"),
        ({"keep_alive_max_failed_probes": 65536}, "keep_alive_max_failed_probes"),
        ({"network_interface_name": "a-name-that-is-too-long"}, "a-name-that-is-too-long"),
        ({"network_interface_name": "lo\0"}, "network_interface_name"),
    ],
)
def test_options_that_contradict(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(AwsIoError, match=named) as caught:
        SocketOptions(**changes)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_OPTIONS
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("type_", SocketType)
def test_socket_posix_creation(type_: SocketType) -> None:
    sock = Socket(SocketOptions(type=type_))
    assert is_open(sock)
    assert sock.fileno() >= 0
    sock.close()
    assert not is_open(sock)
    assert sock.fileno() == -1


@pytest.mark.parametrize("domain", [IPV4, IPV6])
@pytest.mark.parametrize("nodelay", [True, False])
def test_socket_tcp_nodelay(domain: SocketDomain, nodelay: bool) -> None:
    options = SocketOptions(domain=domain, tcp_nodelay=nodelay)
    assert bool(option_of(options, stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)) is nodelay


def test_tcp_nodelay_is_on_by_default_and_can_be_left_to_the_system() -> None:
    assert option_of(SocketOptions(), stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
    with stdlib.socket() as plain:
        default = plain.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
    options = SocketOptions(tcp_nodelay=None)
    assert option_of(options, stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY) == default


def test_keep_alive_options() -> None:
    options = SocketOptions(
        keep_alive=True,
        keep_alive_interval=1000,
        keep_alive_timeout=600,
        keep_alive_max_failed_probes=7,
    )
    idle = getattr(stdlib, "TCP_KEEPIDLE", 0) or getattr(stdlib, "TCP_KEEPALIVE", 0)
    assert option_of(options, stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE)
    assert option_of(options, stdlib.IPPROTO_TCP, idle) == 1000
    assert option_of(options, stdlib.IPPROTO_TCP, stdlib.TCP_KEEPINTVL) == 600
    assert option_of(options, stdlib.IPPROTO_TCP, stdlib.TCP_KEEPCNT) == 7


def test_keep_alive_interval_without_timeout_leaves_the_defaults() -> None:
    defaults = SocketOptions(keep_alive=True)
    half = SocketOptions(keep_alive=True, keep_alive_interval=11)
    interval = stdlib.TCP_KEEPINTVL
    assert option_of(half, stdlib.IPPROTO_TCP, interval) == option_of(
        defaults, stdlib.IPPROTO_TCP, interval
    )


def test_a_stream_socket_may_bind_an_address_in_time_wait_a_datagram_socket_shares_none() -> None:
    reuse = (stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR)
    assert option_of(SocketOptions(), *reuse)
    assert not option_of(SocketOptions(type=SocketType.DGRAM), *reuse)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take other ranges")
def test_an_option_that_the_kernel_refuses_is_named() -> None:
    options = SocketOptions(keep_alive_interval=1, keep_alive_timeout=60000)
    with pytest.raises(AwsIoError, match="keep_alive_timeout 60000") as caught:
        Socket(options)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_OPTIONS


def test_set_options_on_an_open_socket() -> None:
    sock = Socket(SocketOptions(tcp_nodelay=False))
    try:
        sock.set_options(SocketOptions(tcp_nodelay=True, connect_timeout=7))
        assert sock.options.connect_timeout == 7
        with stdlib.socket(fileno=stdlib.dup(sock.fileno())) as same:
            assert same.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
        for other in (SocketOptions(domain=IPV6), SocketOptions(type=SocketType.DGRAM)):
            with pytest.raises(AwsIoError) as caught:
                sock.set_options(other)
            assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_OPTIONS
        assert sock.options.connect_timeout == 7
    finally:
        sock.close()
    with pytest.raises(AwsIoError) as caught:
        sock.set_options(SocketOptions())
    assert caught.value.code is ErrorCode.IO_SOCKET_CLOSED


# Network interfaces


def test_is_network_interface_name_valid() -> None:
    assert is_network_interface_name_valid(LOOPBACK)
    for name in ("invalid_name", "", "lo\0"):
        assert not is_network_interface_name_valid(name)


def test_socket_with_bind_to_invalid_interface() -> None:
    with pytest.raises(AwsIoError, match="'invalid'") as caught:
        Socket(SocketOptions(network_interface_name="invalid"))
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_OPTIONS
