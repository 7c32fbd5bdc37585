"""What the integrations share with the applications, and the end of what they share with all."""

from collections.abc import Iterator

import pytest

from aws_io_async import HostResolver
from tests.applications.conftest import client_tls, server_tls

__all__ = ["client_tls", "server_tls"]


@pytest.fixture(autouse=True)
def default_resolver(no_leaks: None) -> Iterator[None]:
    """The process's resolver ends with the test."""
    yield
    HostResolver.default().shutdown()
