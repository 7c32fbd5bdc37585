"""What the pages of the documentation show works: each Python snippet is a program, and is run."""

import re
from pathlib import Path

import pytest

from tests.test_readme import python

DOCS = Path(__file__).parent.parent / "docs"
PRINTED = {
    "coming-from": [r"b'<a><word><or><three>'\n"],
    "index": [r"b'hello'\n"],
    "errors": [r"True True\nAWS_IO_SOCKET_CONNECTION_REFUSED 1047 TRANSIENT\n"],
    "futures": [r"42\n", r"done\n"],
    "io_streams": [
        r"10 b'0123'\nb'789' True\n",
        r"65536\n131072\n196608\n200000\n200000 bytes\n",
        r"b'012' b'345'\nreading from the stream's source failed: as told .*\n",
    ],
    "observability": [
        r"idle most of the time: True\n\['busy_seconds', 'connections', 'events'\]\n",
        r"the culprit in compute\n1 stall of True\n",
        r"1 \['busy'\]\n",
        r"# HELP aws_io_async_loop_turns_total .*\naws_io_async_resolver_hosts 0\n",
        r"(?s)b'hello'\naws_io_async\.channel: <Channel .*: 5 bytes read, 5 written\n.*",
    ],
    "retry": [
        r"done with 490 units left\n",
        r"2 retries\n",
        r"\[(\d+\.\d+(, )?){5}\]\n",
    ],
    "streams": [
        r"b'hello'\n",
        r"b'Hello, world!!!'\n",
        r"gave up: True\nb'late'\n",
        r"True\nhttp/1\.1 TLSv1\.3\n\(\('DNS', 'peer\.example'\),\)\n",
        r"\[b'aa', b'bb', b'cc'\]\nall served\n",
        r"b'HELLO'\n",
        r"False\nb'1000000'\n",
    ],
    "tutorial": [
        r"b'HELLO\\n'\n",
        r"b'HELLO'\n",
        r"nobody reads: the server has come to a halt: True\n64 MiB received\n",
        r"b'HELLO' TLSv1\.3\nTlsCertificateError 20\n",
        r"\['aws-io-loop-0', 'aws-io-loop-1'\]\n",
        r"b'GOOD' b'MORNING'\nSocketChannelHandler <> Lines <> Collect\n",
        r"\[b'one', b'two'\]\nLines breaks TAIL\nPatientLines keeps the contract\n",
        r"True IO_SOCKET_CONNECTION_REFUSED\nunits of the budget left: 480\n",
    ],
}
"""What the snippets of each page print, in their order."""

CASES = [(page, n, text) for page, texts in PRINTED.items() for n, text in enumerate(texts)]


def snippets(page: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PRINTED)
def test_every_snippet_is_known(page: str) -> None:
    assert len(snippets(page)) == len(PRINTED[page])


@pytest.mark.parametrize(("page", "number", "printed"), CASES)
def test_snippets(tmp_path: Path, page: str, number: int, printed: str) -> None:
    (tmp_path / "program.py").write_text(snippets(page)[number])
    output = python(tmp_path, "-W", "error", "program.py")
    assert re.fullmatch(printed, output), output
