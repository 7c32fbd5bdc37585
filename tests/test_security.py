"""What docs/security.md promises: each promise names a test that exists; here is what had none."""

import ast
import logging
import re
from pathlib import Path

import pytest
import trustme

from aws_io_async import (
    ChannelStream,
    TlsConnectionOptions,
    TlsContext,
    TlsContextOptions,
    connect,
    log,
    serve,
)
from tests.certificates import identity

PAGE = Path(__file__).parent.parent / "docs" / "security.md"
PROMISE = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)")


def test_every_promise_names_a_test() -> None:
    text = PAGE.read_text()
    named = PROMISE.findall(text)
    assert len(named) == len(re.findall(r"`test_\w+`", text)) >= 50
    for name, path in named:
        tree = ast.parse((PAGE.parent.parent / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in tree.body if isinstance(node, functions)}, path


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
async def test_no_byte_that_passes_is_logged(
    caplog: pytest.LogCaptureFixture, ca: trustme.CA, with_tls: bool
) -> None:
    caplog.set_level(logging.DEBUG, "asyncio")
    caplog.set_level(log.TRACE, "aws_io_async")

    async def echo(stream: ChannelStream) -> None:
        async for data in stream:
            await stream.send(data)

    leaf = ca.issue_cert("server.example")
    trusting = TlsContextOptions.default_client()
    trusting.override_default_trust_store(ca.cert_pem.bytes())
    server = TlsContext(TlsContextOptions.default_server(*identity(leaf)))
    client = TlsConnectionOptions(TlsContext(trusting), "server.example")
    async with (
        serve(echo, "127.0.0.1", tls=server if with_tls else None) as listener,
        await connect(
            "127.0.0.1", listener.endpoint.port, tls=client if with_tls else None
        ) as stream,
    ):
        await stream.send(b"a secret word")
        assert await stream.receive() == b"a secret word"
    assert "13 bytes" in caplog.text  # it is told that there was something
    assert "secret" not in caplog.text
    assert leaf.private_key_pem.bytes().splitlines()[1].decode() not in caplog.text
