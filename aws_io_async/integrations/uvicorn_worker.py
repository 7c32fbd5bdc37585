"""uvicorn's worker for gunicorn on our loop.

    gunicorn -k aws_io_async.integrations.uvicorn_worker.UvicornWorker app:app

Needs the package uvicorn-worker, and uvicorn 0.36 or newer.
"""

from typing import Any, ClassVar

import uvicorn_worker  # type: ignore[import-untyped]  # it has no types


class UvicornWorker(uvicorn_worker.UvicornWorker):  # type: ignore[misc]  # nor has its class
    """Has our loop; a subclass may change uvicorn's other settings in `CONFIG_KWARGS`."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **uvicorn_worker.UvicornWorker.CONFIG_KWARGS,
        "loop": "aws_io_async:new_event_loop",
    }
