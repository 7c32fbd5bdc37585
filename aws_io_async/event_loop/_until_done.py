"""Waiting for what has to be over before the caller goes on, cancelled or not."""

import asyncio
from collections.abc import Collection
from typing import Any


async def until_done(futures: "Collection[asyncio.Future[Any]]") -> None:
    """Wait until all are done, and disturb none of them.

    A cancellation is raised when they are; those that follow it change nothing. This is for what
    ends soon by itself, for an anyio scope cancels again each turn of the loop.
    """
    cancellation: asyncio.CancelledError | None = None
    try:
        while waited_for := {future for future in futures if not future.done()}:
            try:
                await asyncio.wait(waited_for)
            except asyncio.CancelledError as exc:
                cancellation = exc
        if cancellation is not None:
            raise cancellation
    finally:
        del cancellation  # it, its traceback and this frame would keep one another alive
