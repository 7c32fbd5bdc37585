"""docs/tls.md: its programs run one after the other in one folder, and print what they should."""

import re
from pathlib import Path

import pytest

from aws_io_async import errors
from aws_io_async._tls_ciphers import TlsCipherPreference
from tests.test_readme import python

PAGE = Path(__file__).parent.parent / "docs" / "tls.md"
if not PAGE.exists():
    pytest.skip("the documentation is not here", allow_module_level=True)
TEXT = PAGE.read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

PRINTED = [
    r"",
    r"b'HELLO' TLSv1\.3\n",
    r"IO_TLS_HOST_NAME_MISMATCH 62 Hostname mismatch, .* not valid for 'other\.example'\.\n"
    r"IO_TLS_UNKNOWN_ROOT_CERTIFICATE 20 unable to get local issuer certificate\n",
    r"b'hello, client@example'\n",
    r"\['SocketChannelHandler', 'TlsChannelHandler', 'Http2'\]\n"
    r"\['SocketChannelHandler', 'TlsChannelHandler', 'Http1'\]\n",
    r"server got b'STARTTLS'\nclient got b'go ahead'\nerror: None\nserver got b'a secret'\n",
]


def test_programs(tmp_path: Path) -> None:
    assert len(PROGRAMS) == len(PRINTED)
    for program, printed in zip(PROGRAMS, PRINTED, strict=True):
        (tmp_path / "program.py").write_text(program)
        output = python(tmp_path, "-W", "error", "program.py")
        assert re.fullmatch(printed, output), output


def test_what_it_names_exists() -> None:
    codes = set(re.findall(r"\bIO_[A-Z_]+\b", TEXT))
    assert codes <= set(errors.ErrorCode.__members__)
    preferences = set(re.findall(r"\b(?:PQ|NON_PQ|TLSV1)_\w+\b", TEXT))
    assert preferences <= set(TlsCipherPreference.__members__)
