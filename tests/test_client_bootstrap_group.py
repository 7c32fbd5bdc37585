"""A client's channel on a loop of a group, the next one or the one that was asked for."""

import pytest

from aws_io_async.channel_bootstrap import ClientBootstrap
from aws_io_async.errors import DnsError, ErrorCode, EventLoopShutdownError
from aws_io_async.event_loop.group import EventLoopGroup
from tests import channels, loops
from tests.bootstraps import (
    LOOPBACK,
    Journal,
    Sink,
    code_of,
    connected,
    ended,
    knowing,
    serving,
    write,
)
from tests.socket_tools import on

no_tasks_left = channels.no_tasks_left


@pytest.mark.parametrize("kind", loops.FACTORIES)
async def test_on_a_loop_of_a_group(kind: str) -> None:
    journal, sink = Journal(), Sink()
    async with (
        serving() as server,
        EventLoopGroup(2, loop_factory=loops.FACTORIES[kind]) as group,
        connected(
            server,
            bootstrap=ClientBootstrap(group),
            handlers=lambda: [sink],
            **journal.of_client,
        ) as channel,
    ):
        assert channel.loop in list(group)
        await on(channel.loop, write(channel, b"hello"))
        assert await sink.got(5) == b"hello"
        await ended(channel)
        assert journal.story == ["creation", "setup", "shutdown"]
        assert {note.loop for note in journal.notes} == {channel.loop}


async def test_a_requested_loop_of_the_group() -> None:
    journal = Journal()
    async with serving() as server, EventLoopGroup(3) as group:
        bootstrap = ClientBootstrap(group)
        for loop in group:
            async with connected(
                server, bootstrap=bootstrap, requested_event_loop=loop, **journal.of_client
            ) as channel:
                assert channel.loop is loop
    assert [note.loop for note in journal.notes[::3]] == list(group)


async def test_a_requested_loop_of_another_group_is_refused_before_anything_is_done() -> None:
    journal = Journal()
    async with EventLoopGroup(1) as group, EventLoopGroup(1) as other:
        with pytest.raises(RuntimeError, match="is not one of the loops of") as caught:
            await ClientBootstrap(group).new_socket_channel(
                LOOPBACK, 1, requested_event_loop=other.get_loop_at(0), **journal.of_client
            )
    assert code_of(caught.value) is ErrorCode.ERROR_IO_PINNED_EVENT_LOOP_MISMATCH
    assert journal.story == []


async def test_without_a_group_any_loop_may_be_requested() -> None:
    async with serving() as server, EventLoopGroup(1) as group:
        loop = group.get_loop_at(0)
        async with connected(server, requested_event_loop=loop) as channel:
            assert channel.loop is loop


async def test_a_failure_is_told_on_the_requested_loop() -> None:
    journal = Journal()
    async with EventLoopGroup(2) as group:
        with knowing() as resolver:
            bootstrap = ClientBootstrap(group, host_resolver=resolver)
            for loop in group:
                with pytest.raises(DnsError):
                    await bootstrap.new_socket_channel(
                        "no.test", 1, requested_event_loop=loop, **journal.of_client
                    )
    assert journal.story == ["failure"] * 2
    assert [note.loop for note in journal.notes] == list(group)


async def test_a_group_that_was_shut_down() -> None:
    journal = Journal()
    group = EventLoopGroup(1)
    loop = group.get_loop_at(0)
    await group.aclose()
    bootstrap = ClientBootstrap(group)
    with pytest.raises(EventLoopShutdownError):
        await bootstrap.new_socket_channel(LOOPBACK, 1, **journal.of_client)
    with pytest.raises(EventLoopShutdownError):
        await bootstrap.new_socket_channel(
            LOOPBACK, 1, requested_event_loop=loop, **journal.of_client
        )
    assert journal.story == []
