"""TLS engines, and channels with TLS, are given anything: noise, and real messages with damage.

What is promised: only the errors that are documented; no plaintext but what the peer said, in its
order; an end within a number of steps that the length of the input bounds; nothing kept.
"""

import random
import ssl
from collections.abc import Sequence
from functools import cache

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from aws_io_async._tls_engine import TlsEngine
from aws_io_async._tls_state import TlsState
from aws_io_async.errors import AwsIoError
from aws_io_async.testing import TestingChannel, TestingLoop
from aws_io_async.tls_channel_handler import TlsChannelHandler
from aws_io_async.tls_context import TlsConnectionOptions
from tests.faults._report import Fault
from tests.fuzz import corpora
from tests.fuzz.mutations import CUTS, MUTATIONS, Mutation, mutated, pieces
from tests.models.rounds import bounded, seeded
from tests.tls_engines import Wire, client_context, server_context
from tests.tls_peers import HOST, TLS12, TLS13, client_of, server_of

DAMAGED = Fault(
    "Input",
    "a TLS peer sends noise, or messages with bits, bytes and records changed, doubled or missing",
    "a documented error or none; no plaintext that the peer did not say",
)
NOISE_IN_CHANNELS = Fault(
    "Input",
    "a channel gets noise where TLS is expected",
    "it ends with a documented error, and its resources with it",
)

PLAINTEXT = random.Random(4).randbytes(40_000)
MOST_UNSENT = 4096
"""Bytes that an engine has to say to what it does not understand; an alert, or a hello again."""

authority = cache(trustme.CA)

STAGES = ("beginning", "middle", "end")
"""Of a handshake, in which the damage comes."""


@cache
def contexts(server: bool, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The engine's and the peer's."""
    pair = server_context(authority(), version), client_context(authority(), version)
    return pair if server else pair[::-1]


class Victim:
    """An engine that is given what comes, as its owners do; it checks what it can."""

    def __init__(self, engine: TlsEngine, said: bytes = b"") -> None:
        self.engine = engine
        self._said = said
        self._heard = 0
        self.error: Exception | None = None

    def feed(self, data: bytes) -> None:
        self.engine.receive_data(data)
        self._look(len(data))

    def end(self) -> None:
        self.engine.receive_eof()
        self._look(0)
        assert self.engine.state is not TlsState.HANDSHAKE
        assert self.engine.state is not TlsState.OPEN

    def _look(self, size: int) -> None:
        try:
            if self.engine.state is TlsState.HANDSHAKE:
                self.engine.handshake()
            for _ in range(size + len(self._said) + 2):
                data = self.engine.read_available(1000)
                if not data:
                    break
                assert data == self._said[self._heard : self._heard + len(data)]
                self._heard += len(data)
            else:
                raise AssertionError("reading does not come to an end")
        except ssl.SSLError as exc:
            self._failed(exc)
        assert self.engine.unsent <= MOST_UNSENT
        self.engine.data_to_send()

    def _failed(self, exc: ssl.SSLError) -> None:
        """For good, and always for the same reason."""
        assert self.engine.state is TlsState.FAILED
        assert self.error in (None, exc)
        self.error = exc
        with pytest.raises(type(exc)):
            self.engine.read(1)
        with pytest.raises(type(exc)):
            self.engine.write(b"x")


def noise_to(server: bool, version: ssl.TLSVersion, noise: bytes, cuts: Sequence[int] = ()) -> None:
    """An engine hears nothing else, and then the end."""
    engine = Wire(*contexts(server, version)).engine
    engine.handshake()
    engine.data_to_send()
    victim = Victim(engine)
    for piece in pieces(noise, cuts):
        victim.feed(piece)
    victim.end()
    assert victim.error is not None
    assert not engine.clean_close


def replay(noise: bytes) -> None:
    for server in (False, True):
        for version in (TLS12, TLS13):
            noise_to(server, version, noise)
            noise_to(server, version, noise, [1] * 100)


@pytest.mark.parametrize("name", corpora.files("tls"))
def test_what_was_kept(name: str) -> None:
    replay(corpora.files("tls")[name])


SIDES = st.booleans()
VERSIONS = st.sampled_from([TLS12, TLS13])
RECORDS = st.builds(
    lambda kind, version, data: bytes([kind]) + version + len(data).to_bytes(2) + data,
    st.sampled_from([20, 21, 22, 23, 24, 0, 255]),
    st.sampled_from([b"\x03\x01", b"\x03\x03", b"\x03\x04", b"\x02\x00"]),
    st.binary(max_size=60),
)
NOISE = st.one_of(
    st.binary(max_size=400),
    st.lists(RECORDS, max_size=5).map(b"".join),
    st.builds(mutated, st.sampled_from([*corpora.files("tls").values()]), MUTATIONS),
)


@seeded
@given(server=SIDES, version=VERSIONS, noise=NOISE, cuts=CUTS)
@bounded(150)
def test_noise(server: bool, version: ssl.TLSVersion, noise: bytes, cuts: list[int]) -> None:
    noise_to(server, version, noise, cuts)
    DAMAGED.seen("refused")


@seeded
@given(
    server=SIDES,
    version=VERSIONS,
    stage=st.sampled_from(STAGES),
    mutations=MUTATIONS,
    cuts=CUTS,
    size=st.sampled_from([1, 100, 20_000]),
    closes=st.booleans(),
    ours=st.sampled_from(["nothing", "writes", "shuts down"]),
)
@bounded(150)
def test_damage_to_a_conversation(
    server: bool,
    version: ssl.TLSVersion,
    stage: str,
    mutations: list[Mutation],
    cuts: list[int],
    size: int,
    closes: bool,
    ours: str,
) -> None:
    """Up to a stage all is well; one flight of messages, or the data, is damaged."""
    wire = Wire(*contexts(server, version))
    engine, peer = wire.engine, wire.peer
    flights = STAGES.index(stage)
    said = b""
    if stage == "end":
        wire.handshake()
        said = PLAINTEXT[:size]
        peer.write(b"")
        flight = b"".join(peer.write(said[at : at + 5000]) for at in range(0, size, 5000))
        flight += peer.close() if closes else b""
    else:
        flight = b""
        for turn in range(flights + 1):
            engine.handshake()
            wire.to_peer()
            peer.handshake()
            flight = peer.outgoing.read()
            if turn < flights:
                engine.receive_data(flight)
    if ours == "writes":
        engine.write(b"ours")
    elif ours == "shuts down":
        engine.shutdown()
        said = b""  # is discarded
    victim = Victim(engine, said)
    damaged = mutated(flight, mutations)
    for piece in pieces(damaged, cuts):
        victim.feed(piece)
    victim.end()
    if damaged != flight:
        DAMAGED.seen("cut off" if victim.error is None else "refused")


# Whole channels


@cache
def options() -> TlsConnectionOptions:
    return TlsConnectionOptions(client_of(authority()), HOST)


@cache
def server_options() -> TlsConnectionOptions:
    return TlsConnectionOptions(server_of(authority()))


def noise_in_a_channel(server: bool, noise: bytes, cuts: Sequence[int] = ()) -> None:
    handler = (
        TlsChannelHandler.server(server_options())
        if server
        else TlsChannelHandler.client(options())
    )
    loop = TestingLoop()
    try:
        with TestingChannel(handler, loop=loop) as ends:
            if not server:
                loop.call(handler.start_negotiation)
            for piece in pieces(noise, cuts):
                if ends.channel.is_closing():
                    break
                ends.push_read(piece[: ends.read_window])
                loop.run_until_idle()
            if not ends.channel.is_closing():
                ends.push_end_of_input()
                loop.run_until_idle()
            if not ends.channel.is_closing():
                loop.advance(options().timeout + 1)
            loop.run_until_idle()
            assert ends.is_shut_down
            assert isinstance(ends.error, AwsIoError)
            assert ends.take_received() == b""
    finally:
        loop.close()


@seeded
@given(server=SIDES, noise=NOISE, cuts=CUTS)
@bounded(40)
def test_noise_in_a_channel(server: bool, noise: bytes, cuts: list[int]) -> None:
    noise_in_a_channel(server, noise, cuts)
    NOISE_IN_CHANNELS.seen("ended with a documented error")


def test_nothing_is_kept() -> None:
    inputs = corpora.files("tls").values()

    def one_round() -> None:
        for noise in inputs:
            replay(noise)
            noise_in_a_channel(True, noise)
            noise_in_a_channel(False, noise)

    assert corpora.growth(one_round) < corpora.MOST
