"""`resolve`: rotation, failures and times to live, by a DNS server that does as it is told."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import run, running, terminal, without
from tests.cli.servers import serving
from tests.dns_server import SERVFAIL, DnsServer
from tests.schemas import validate

HOST = "service.example"


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.records[HOST, "A"] = [("127.0.0.1", 5), ("127.0.0.2", 100)]
        yield server


def by(dns: DnsServer) -> tuple[str, str]:
    host, port = dns.address
    return "--server", f"{host}:{port}"


def documents(output: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in output.splitlines()]
    for document in found:
        validate(document, "resolve")
    return found


def test_addresses_are_given_out_in_turn(dns: DnsServer) -> None:
    done = run("resolve", HOST, *by(dns), "--count", "4", "--interval", "0.01", "--json")
    hosts = [document["hosts"][0] for document in documents(done.stdout)]
    assert done.returncode == 0
    assert [host["given"] for host in hosts] == [["127.0.0.1"], ["127.0.0.2"]] * 2
    last = {each["address"]: each for each in hosts[-1]["addresses"]}
    assert {each["uses"] for each in last.values()} == {2}
    assert {each["state"] for each in last.values()} == {"good"}


def test_times_to_live_are_those_of_dns(dns: DnsServer) -> None:
    dns.records[HOST, "AAAA"] = [("::1", 100)]
    done = run("resolve", HOST, *by(dns), "--once", "--json", "--max-ttl", "20")
    (host,) = documents(done.stdout)[0]["hosts"]
    expiries = {each["address"]: each["expires_in"] for each in host["addresses"]}
    assert 0 < expiries["127.0.0.1"] <= 5
    assert 5 < expiries["::1"] <= 20


def test_addresses_where_nobody_answers_are_set_aside(dns: DnsServer) -> None:
    with serving() as port:
        done = run(
            *("resolve", HOST, *by(dns), "--port", f"{port}"),
            *("--count", "3", "--interval", "0.01", "--json"),
        )
    hosts = [document["hosts"][0] for document in documents(done.stdout)]
    last = {each["address"]: each for each in hosts[-1]["addresses"]}
    assert last["127.0.0.1"]["state"] == "good"
    assert last["127.0.0.2"]["state"] == "failed"
    assert last["127.0.0.2"]["failure"] == "connection refused"
    assert last["127.0.0.2"]["connection_failures"] == 1
    assert hosts[-1]["given"] == ["127.0.0.1"]


def test_a_table(dns: DnsServer) -> None:
    dns.records[HOST, "AAAA"] = [("::1", 100)]
    done = run("resolve", HOST, "127.0.0.9", *by(dns), "--once")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "1 lookup, 0 failed"
    headings = ["Host", "Address", "Type", "State", "Given", "Uses", "Expires", "Failure"]
    assert lines[1].split() == headings
    assert lines[2].split()[:6] == [HOST, "::1", "AAAA", "good", "now", "1"]
    assert re.search(rf"{HOST} +127\.0\.0\.2 +A +good +0 +[45]\.\d s\n", done.stdout)
    assert lines[5].split() == ["127.0.0.9", "127.0.0.9", "A", "good", "now", "1"]


def test_a_literal_address_that_does_not_answer() -> None:
    done = run("resolve", "127.0.0.9", "--port", "1", "--once", "--json")
    (host,) = documents(done.stdout)[0]["hosts"]
    (address,) = host["addresses"]
    assert (address["state"], address["expires_in"]) == ("failed", None)


def test_a_name_that_is_not_there(dns: DnsServer) -> None:
    done = run("resolve", HOST, "missing.example", "-bad-.", *by(dns), "--once", "--json")
    assert done.returncode == 2  # this looks like an option
    done = run("resolve", HOST, "missing.example", "bad..name", *by(dns), "--once", "--json")
    assert done.returncode == 3
    good, missing, bad = documents(done.stdout)[0]["hosts"]
    assert good["error"] is None
    assert "AWS_IO_DNS_INVALID_NAME" in missing["error"]
    assert "empty label" in bad["error"]
    done = run("resolve", "missing.example", *by(dns), "--once")
    assert done.returncode == 3
    assert "missing.example" in done.stdout


def test_an_outage_is_lived_through(dns: DnsServer) -> None:
    options = ("--interval", "0.2", "--max-ttl", "0.3", "--json")
    with running("resolve", HOST, *by(dns), *options) as command:
        command.line()
        dns.fail(SERVFAIL)
        asked = dns.asked.count
        while dns.asked.count < asked + 4:
            command.line()
        (document,) = documents(command.line())
        assert document["hosts"][0]["error"] is None
        assert len(document["hosts"][0]["given"]) == 1
        status, output, _ = command.end()
        documents(output)
        assert status == 130


def test_the_systems_own_lookup() -> None:
    done = run("resolve", "localhost", "--once", "--json")
    (host,) = documents(done.stdout)[0]["hosts"]
    assert "127.0.0.1" in [each["address"] for each in host["addresses"]]


def test_live_at_a_terminal(dns: DnsServer) -> None:
    with (
        serving() as port,
        terminal("resolve", HOST, *by(dns), "--interval", "0.1", "--port", f"{port}") as screen,
    ):
        screen.wait_for(r"127\.0\.0\.1 +A +good +now")
        screen.wait_for(r"127\.0\.0\.2 +A +failed .*connection refused")
        assert "\x1b[?25l" in screen.raw  # the cursor is hidden
        screen.type("\x03")
        assert screen.wait() == 130
        assert screen.raw.rindex("\x1b[?25h") > screen.raw.rindex("\x1b[?25l")  # and shown again


def test_sigint_piped(dns: DnsServer) -> None:
    with running("resolve", HOST, *by(dns)) as command:
        command.line_with("127.0.0.1")
        assert command.end(signal.SIGINT)[0] == 130


def test_without_dnspython(tmp_path: Path) -> None:
    done = run("resolve", HOST, "--dns", env=without("dns", tmp_path))
    assert done.returncode == 2
    assert 'pip install "aws-io-async[dns]"' in done.stderr


def test_a_narrow_terminal_folds_the_failure_alone() -> None:
    with terminal("resolve", "nosuch.invalid", "--once", columns=60) as screen:
        screen.wait_for(r"Host +Address +State +Failure *\n")
        screen.wait_for(r"nosuch.invalid +none +the host name is invalid *\n +or does not exist")
        assert screen.wait() == 3
    assert "…" not in screen.text


@pytest.mark.parametrize(
    "options",
    [["--once", "--interval", "-1"], ["--count", "0"], ["--max-ttl", "0.01"], ["--port", "x"]],
)
def test_misuse(options: list[str]) -> None:
    done = run("resolve", HOST, *options)
    assert done.returncode == 2
    assert "error: " in done.stderr
