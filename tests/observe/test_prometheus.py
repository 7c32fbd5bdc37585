"""What a Prometheus server reads, by the parser of Prometheus' own client library."""

import socket
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from aws_io_async import HostResolver, observe
from tests.crt_loops import open_ours
from tests.lookups import Lookup, making_resolvers


def parse(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_the_figures_of_loops() -> None:
    with open_ours("aws_io_async") as one, open_ours("aws_io_async") as other:
        a, b = socket.socketpair()
        with a, b:
            one.add_reader(a, lambda: a.recv(1))
            b.send(b"x")
            one.stop()
            one.run_forever()
            families = parse(observe.prometheus_text([one, other]))
            one.remove_reader(a)
        names = [observe.describe_loop(loop)["name"] for loop in (one, other)]
        values = {
            (name, sample.labels["loop"]): sample.value
            for name, family in families.items()
            for sample in family.samples
        }
        assert values["aws_io_async_loop_turns", names[0]] == 1
        assert values["aws_io_async_loop_turns", names[1]] == 0
        assert values["aws_io_async_loop_events", names[0]] == 1
        assert values["aws_io_async_loop_watched_descriptors", names[0]] == 2
        assert values["aws_io_async_loop_running_seconds", names[0]] > 0
        assert families["aws_io_async_loop_turns"].type == "counter"
        assert families["aws_io_async_loop_load_factor"].type == "gauge"
        assert all(family.documentation.endswith(".") for family in families.values())
        assert all(len(family.samples) == 2 for family in families.values())


def test_all_loops_by_default() -> None:
    with open_ours("aws_io_async") as loop:
        (family,) = [
            each for name, each in parse(observe.prometheus_text()).items() if "timers" in name
        ]
        named = {sample.labels["loop"] for sample in family.samples}
        assert observe.describe_loop(loop)["name"] in named


async def test_a_resolvers_figures() -> None:
    with making_resolvers() as make:
        resolver: HostResolver = make(Lookup(["127.0.0.1"], OSError("down")))
        await resolver.resolve_host("example.com")
        families = parse(observe.prometheus_text([], host_resolver=resolver))
        assert families["aws_io_async_resolver_hosts"].samples[0].value == 1
        assert families["aws_io_async_resolver_lookups"].samples[0].value >= 1
        assert "aws_io_async_resolver_failed_lookups" in families
        assert len(families) == 4


def test_the_figures_of_a_watch() -> None:
    with open_ours("aws_io_async") as loop, observe.watch_stalls(loop) as watch:
        families = parse(observe.prometheus_text([], stall_watch=watch))
    assert families["aws_io_async_stalls"].samples[0].value == 0
    assert families["aws_io_async_longest_stall_seconds"].samples[0].value == 0


def test_no_loop_no_text() -> None:
    assert observe.prometheus_text([]) == ""
