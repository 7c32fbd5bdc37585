"""A transport for httpx whose connections are channels.

    async with httpx.AsyncClient(transport=ChannelTransport()) as client:
        response = await client.get("https://example.com/")

Needs httpx 0.27 or newer: the extra `httpx`.
"""

from typing import Any

try:
    import httpcore
    import httpx
except ModuleNotFoundError as exc:
    message = f'{__name__} needs httpx: pip install "aws-io-async[httpx]"'
    raise ModuleNotFoundError(message, name=exc.name) from exc

from .httpcore import ChannelBackend


class ChannelTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, with all its options, on a `ChannelBackend`, by default a new one.

    httpx takes `verify`, `cert`, `http2`, `limits`, `proxy` as options of the transport, if it is
    given one. Raises RuntimeError if this httpcore has no place for a backend where it is looked
    for: httpx offers no other way to choose one.
    """

    def __init__(self, backend: ChannelBackend | None = None, **options: Any) -> None:
        super().__init__(**options)
        pool: Any = self._pool
        if not isinstance(
            getattr(pool, "_network_backend", None), httpcore.AsyncNetworkBackend
        ):  # pragma: no cover
            raise RuntimeError(f"httpcore {httpcore.__version__} keeps its backend elsewhere")
        pool._network_backend = backend or ChannelBackend()
