"""gunicorn's own ASGI worker on our loop.

    gunicorn -k aws_io_async.integrations.gunicorn.ASGIWorker app:app

Needs gunicorn 24 or newer. For uvicorn's worker see `aws_io_async.integrations.uvicorn_worker`.
"""

import asyncio

from gunicorn.workers import gasgi  # type: ignore[import-untyped]  # it has no types

from ..event_loop.entry import new_event_loop


class ASGIWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # nor has its class
    """Has our loop, whatever the setting `asgi_loop` says, which knows three names only."""

    def _setup_event_loop(self) -> None:
        self.loop = new_event_loop()
        asyncio.set_event_loop(self.loop)
