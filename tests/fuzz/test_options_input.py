"""Text and numbers where addresses, names, protocols and options are expected.

Some have names that are no text to others: surrogates, dots that are none, digits of other scripts,
numbers past every limit. What is taken has to be good for what it is for.
"""

import math
import socket
from functools import cache, partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aws_io_async._socket_options import (
    from_sockaddr,
    is_network_interface_name_valid,
    parse_ipv4_address,
    parse_ipv6_address,
    to_sockaddr,
    validate_port_for_bind,
    validate_port_for_connect,
)
from aws_io_async._tls_engine import TlsEngine
from aws_io_async.errors import AwsIoError, CommonErrorCode, ErrorCode
from aws_io_async.host_resolver import HostResolutionConfig, HostResolver
from aws_io_async.host_resolver._names import MAX_NAME, literal, normalize
from aws_io_async.socket import Socket, SocketDomain, SocketEndpoint, SocketOptions, SocketType
from aws_io_async.tls_context import (
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    parse_alpn_list,
)
from tests.faults._report import Fault
from tests.fuzz import corpora
from tests.fuzz.outcomes import REFUSED, TAKEN, outcome
from tests.models.rounds import bounded, seeded

ODD_TEXT = Fault(
    "Input",
    "addresses, host names, server names, ALPN lists and options that cannot be",
    "taken if they are good for what they are for, or refused with a documented error",
)

ODD_CHARACTERS = [
    "\xdf",
    "\xe9",
    "\u0130",
    "\u0661",
    "\xb2",
    "\u2024",
    "\u3002",
    "\ud800",
    "\udcff",
]
PARTS = st.sampled_from(
    [
        *".:%-[]/*;,_ 0189afAFxX\0\n",
        *("::", "127.0.0.1", "fe80::1", "%lo", "xn--", "example", "localhost"),
        *("9" * 25, "0" * 25, "a" * 63),
        *ODD_CHARACTERS,
    ]
)
TEXTS = st.lists(PARTS, max_size=8).map("".join) | st.text(max_size=20)
DOMAINS = st.sampled_from(SocketDomain)
KEPT = corpora.documents("texts")
PORTS = st.sampled_from([0, 1, 65_535, 65_536, -1, 1 << 31, 0xFFFF_FFFF, 1 << 32, 1 << 70])


# Addresses


def check_endpoint(text: str, port: int, domain: SocketDomain) -> None:
    endpoint = SocketEndpoint(text, port)
    assert text in str(endpoint)
    codes = (ErrorCode.IO_SOCKET_INVALID_ADDRESS, CommonErrorCode.ERROR_FILE_INVALID_PATH)
    found = outcome(lambda: from_sockaddr(to_sockaddr(endpoint, domain), domain), *codes)
    for validate in (validate_port_for_bind, validate_port_for_connect):
        outcome(partial(validate, port, domain), ErrorCode.IO_SOCKET_INVALID_ADDRESS)
    if domain in (SocketDomain.IPV4, SocketDomain.IPV6):
        check_that_the_system_agrees(endpoint, domain, found)
    ODD_TEXT.seen(found)


def check_that_the_system_agrees(
    endpoint: SocketEndpoint, domain: SocketDomain, found: str
) -> None:
    """What is taken is an address of the family to the socket module, too, looked up nowhere."""
    parse = parse_ipv4_address if domain is SocketDomain.IPV4 else parse_ipv6_address
    bare = endpoint.address.partition("%")[0] if domain is SocketDomain.IPV6 else endpoint.address
    literal_found = outcome(lambda: parse(bare), ErrorCode.IO_SOCKET_INVALID_ADDRESS)
    assert found is REFUSED or literal_found is TAKEN
    if found is TAKEN:
        family = socket.AF_INET if domain is SocketDomain.IPV4 else socket.AF_INET6
        flags = socket.AI_NUMERICHOST
        assert socket.getaddrinfo(bare, 1, family, socket.SOCK_STREAM, 0, flags)


def check_bind(text: str, port: int, domain: SocketDomain) -> None:
    """To bind is to be refused by us or by the kernel, and never by a Python error."""
    try:
        sock = Socket(SocketOptions(domain=domain))
    except AwsIoError:  # no such sockets here
        return
    try:
        sock.bind(SocketEndpoint(text, port))
    except AwsIoError:
        pass
    finally:
        sock.close()


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("domain", SocketDomain)
def test_addresses_that_were_kept(text: str, domain: SocketDomain) -> None:
    for port in (0, 1, 1 << 70):
        check_endpoint(text, port, domain)
    if domain is not SocketDomain.LOCAL:  # which would make files
        check_bind(text, 0, domain)
        check_bind(text, 1 << 70, domain)


@seeded
@given(text=TEXTS, port=PORTS, domain=DOMAINS)
@bounded(150)
def test_addresses(text: str, port: int, domain: SocketDomain) -> None:
    check_endpoint(text, port, domain)
    if domain is not SocketDomain.LOCAL:
        check_bind(text, port, domain)


@pytest.mark.parametrize("zone", [1 << 32, (1 << 32) + 1, 10**11])
def test_a_zone_is_not_cut_down_to_another_one(zone: int) -> None:
    with pytest.raises(AwsIoError) as caught:
        to_sockaddr(SocketEndpoint(f"fe80::1%{zone}", 1), SocketDomain.IPV6)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS


@pytest.mark.parametrize("domain", [SocketDomain.IPV6, SocketDomain.VSOCK])
def test_numbers_have_as_many_digits_as_one_likes(domain: SocketDomain) -> None:
    prefix = "fe80::1%" if domain is SocketDomain.IPV6 else ""
    endpoint = SocketEndpoint(f"{prefix}{'0' * 5000}7", 1)
    assert 7 in (to_sockaddr(endpoint, domain)[-1], to_sockaddr(endpoint, domain)[0])
    with pytest.raises(AwsIoError) as caught:
        to_sockaddr(SocketEndpoint(f"{prefix}{'9' * 5000}", 1), domain)
    assert caught.value.code is ErrorCode.IO_SOCKET_INVALID_ADDRESS


# Options


NUMBERS = st.sampled_from([0, 1, -1, 65_535, 65_536, 1 << 70])


@seeded
@given(
    domain=DOMAINS,
    type=st.sampled_from(SocketType),
    connect_timeout=st.floats() | st.integers(),
    keep_alive=st.booleans(),
    numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    interface=TEXTS,
)
@example(SocketDomain.IPV4, SocketType.STREAM, 1.0, False, (0, 0, 0), "\ud800")
@bounded(120)
def test_socket_options(
    domain: SocketDomain,
    type: SocketType,
    connect_timeout: float,
    keep_alive: bool,
    numbers: tuple[int, int, int],
    interface: str,
) -> None:
    """The kernel may still refuse them, which says the same."""

    def use() -> None:
        options = SocketOptions(
            type, domain, connect_timeout, keep_alive, *numbers, network_interface_name=interface
        )
        assert 0 < options.connect_timeout < math.inf
        if domain in (SocketDomain.IPV4, SocketDomain.IPV6):
            Socket(options).close()

    ODD_TEXT.seen(outcome(use, ErrorCode.IO_SOCKET_INVALID_OPTIONS))
    assert is_network_interface_name_valid(interface) in (True, False)


# Names

INVALID = ErrorCode.IO_DNS_INVALID_NAME


def check_name(text: str) -> None:
    address = literal(text)
    if address is not None:
        assert literal(address) == address
    names: list[str] = []
    found = outcome(lambda: names.append(normalize(text)), INVALID)
    for name in names:
        assert name.isascii()
        assert len(name) <= MAX_NAME + 1
        assert normalize(name) == name
    ODD_TEXT.seen(found)


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_names_that_were_kept(text: str) -> None:
    check_name(text)
    check_server_name(text)
    check_alpn(text)


@seeded
@given(text=TEXTS)
@bounded(200)
def test_host_names(text: str) -> None:
    check_name(text)


@pytest.mark.loops("aws_io_async")
async def test_the_resolver_refuses_what_is_no_name_at_once() -> None:
    """And asks nobody for it."""
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"]

    async with HostResolver(config=HostResolutionConfig(lookup)) as resolver:
        for text in KEPT.values():
            asked.clear()
            if literal(text) is None and outcome(partial(normalize, text), INVALID) is REFUSED:
                with pytest.raises(AwsIoError) as caught:
                    await resolver.resolve_host(text)
                assert caught.value.code is INVALID
                assert asked == []
            else:
                await resolver.resolve_host(text)
                assert asked[:1] == ([] if literal(text) else [normalize(text)])


# TLS


@cache
def context() -> TlsContext:
    options = TlsContextOptions.default_client()
    options.set_verify_peer(False)
    return TlsContext.client(options)


def check_server_name(text: str) -> None:
    """What is taken, the engine takes as well."""

    def use() -> None:
        options = TlsConnectionOptions(context(), text)
        ssl_context = options.effective_context.ssl_context
        TlsEngine(ssl_context, server_side=False, server_hostname=options.server_name).handshake()

    ODD_TEXT.seen(outcome(use, ErrorCode.IO_TLS_CTX_ERROR))


@seeded
@given(text=TEXTS)
@bounded(200)
def test_server_names(text: str) -> None:
    check_server_name(text)


def check_alpn(protocols: str | list[str]) -> None:
    def use() -> None:
        names = parse_alpn_list(protocols)
        assert parse_alpn_list(";".join(names)) == names or ";" in "".join(names)
        context().with_alpn(protocols)

    ODD_TEXT.seen(outcome(use, ErrorCode.IO_TLS_CTX_ERROR))


@seeded
@given(protocols=TEXTS | st.lists(TEXTS, max_size=5))
@example(["a" * 255] * 255 + ["b" * 254])
@example(["a" * 255] * 256)
@bounded(100)
def test_alpn_lists(protocols: str | list[str]) -> None:
    check_alpn(protocols)


@seeded
@given(timeout=st.floats() | st.integers())
@bounded(30)
def test_negotiation_timeouts(timeout: float) -> None:
    found = outcome(
        lambda: TlsConnectionOptions(context(), timeout=timeout),
        CommonErrorCode.ERROR_INVALID_ARGUMENT,
    )
    assert (found is TAKEN) == (0 <= timeout < math.inf)


def test_nothing_is_kept() -> None:
    def one_round() -> None:
        for text in KEPT.values():
            check_name(text)
            check_server_name(text)
            for domain in SocketDomain:
                check_endpoint(text, 1, domain)

    assert corpora.growth(one_round) < corpora.MOST
