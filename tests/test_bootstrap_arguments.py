"""Bootstraps that are given what they cannot call say so at once, before anything is done."""

from typing import Any

import pytest

from aws_io_async import ChannelHandler
from aws_io_async.channel_bootstrap import ClientBootstrap, ServerBootstrap
from tests import channels
from tests.bootstraps import LOOPBACK, listening

no_tasks_left = channels.no_tasks_left


async def coroutine(*_: object) -> None: ...


Case = tuple[dict[str, Any], type[Exception], str]

OF_BOTH: list[Case] = [
    ({"handlers": [ChannelHandler()]}, TypeError, "handlers must be a function that makes them"),
    ({"handlers": coroutine}, TypeError, "handlers must be a plain function"),
    ({"max_read_size": 2.5}, TypeError, "max_read_size must be an int"),
]

OF_CLIENTS: list[Case] = [
    ({"on_creation": 1}, TypeError, "on_creation must be callable, not 1"),
    ({"on_setup": 1}, TypeError, "on_setup must be callable, not 1"),
    ({"on_setup": coroutine}, TypeError, "on_setup must be a plain function, not the coroutine"),
    ({"on_shutdown": 1}, TypeError, "on_shutdown must be callable, not 1"),
    ({"requested_event_loop": 1}, TypeError, "must be an AbstractEventLoop, not 1"),
]

OF_SERVERS: list[Case] = [
    ({"on_incoming_channel_creation": 1}, TypeError, "_creation must be callable, not 1"),
    ({"on_incoming_channel_setup": 1}, TypeError, "_setup must be callable, not 1"),
    ({"on_incoming_channel_shutdown": 1}, TypeError, "_shutdown must be callable, not 1"),
    ({"on_destroy": 1}, TypeError, "on_destroy must be callable, not 1"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), OF_BOTH + OF_CLIENTS)
async def test_a_clients(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    with listening() as listener:
        host, port = listener.getsockname()
        with pytest.raises(kind, match=message):
            await ClientBootstrap().new_socket_channel(**{"host": host, "port": port, **wrong})
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(("wrong", "kind", "message"), OF_BOTH + OF_SERVERS)
async def test_a_servers(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        await ServerBootstrap().new_socket_listener(**{"host": LOOPBACK, **wrong})


@pytest.mark.parametrize(
    ("delay", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_a_delay_is_a_number_of_seconds(delay: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        ClientBootstrap(attempt_delay=delay)


@pytest.mark.parametrize("option", ["tls_handler_factory", "on_protocol_negotiated"])
async def test_what_is_to_be_called_can_be(option: str) -> None:
    wrong: dict[str, Any] = {option: 5}
    with pytest.raises(TypeError, match=f"{option} must be callable, not 5"):
        await ClientBootstrap(**wrong).new_socket_channel(LOOPBACK, 1)
    with pytest.raises(TypeError, match=f"{option} must be callable, not 5"):
        await ServerBootstrap(**wrong).new_socket_listener(LOOPBACK)
