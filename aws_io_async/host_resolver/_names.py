"""Host names, and addresses written where a name is expected: told apart, checked, put in order.

Source: RFC 1123, section 2.1, as lenient as practice has become: names may have underscores, and
labels may end with a hyphen. Thread: any.
"""

import ipaddress
import re
from functools import lru_cache

from .. import errors
from ..errors import ErrorCode

MAX_NAME = 253
"""Characters of a whole name, without the dot of the root (RFC 1035, section 2.3.4)."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}")


@lru_cache(maxsize=4096)
def literal(host: str) -> str | None:
    """`host` in its shortest form, if it is an address and no name: `0:0::1` becomes `::1`.

    The zone of an IPv6 address stays: `fe80::1%eth0`. Raises TypeError if `host` is no str.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host must be a str, not {type(host).__name__}")
    if ":" not in host and not host[-1:].isdigit():  # most names end with a letter
        return None
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def normalize(host: str) -> str:
    """A name as it is looked up: in lower case, and IDNA-encoded where it is not ASCII.

    A dot at the end stays, as it keeps the system from trying its search domains. Raises
    IO_DNS_INVALID_NAME if this can be no name.
    """
    if not host.isascii():
        host = _idna(host)
    name = host.lower()
    bare = name.removesuffix(".")
    if len(bare) > MAX_NAME:
        raise _invalid(f"{bare[:40]}... has {len(bare)} characters: at most {MAX_NAME} are allowed")
    for label in bare.split("."):
        if not _LABEL.fullmatch(label):
            raise _invalid(f"{host!r}: {_whats_wrong(host, label)}")
    return name


def _idna(host: str) -> str:
    if len(host) > MAX_NAME:  # the codec takes quadratic time
        raise _invalid(f"{host[:40]!r}... has {len(host)} characters: at most {MAX_NAME}")
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise _invalid(f"{host!r} cannot be IDNA-encoded: {exc}") from exc


def _whats_wrong(host: str, label: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return "an IPv6 address is written without brackets here"
    if not label:
        return "empty label"
    if len(label) > 63:
        return f"the label {label[:40]!r}... has more than 63 characters"
    if label.startswith("-"):
        return f"the label {label!r} begins with a hyphen"
    return f"the label {label!r} has characters that no host name has"


def _invalid(detail: str) -> errors.AwsIoError:
    return errors.make(ErrorCode.IO_DNS_INVALID_NAME, detail)
