"""RFC 8305, happy eyeballs: try several addresses, staggered, and keep the first that answers."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from ._names import AddressInfo
from ._until_done import until_done

T = TypeVar("T")


def interleave(infos: Sequence[AddressInfo], first_family_count: int = 1) -> list[AddressInfo]:
    """Reorder addresses so that families alternate (RFC 8305, section 4).

    The family that comes first gets `first_family_count` addresses before the others' first.
    """
    families: dict[int, list[AddressInfo]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    if not families:
        return []
    first = next(iter(families.values()))
    head, first[:] = first[: first_family_count - 1], first[first_family_count - 1 :]
    rounds = chain.from_iterable(zip_longest(*families.values()))
    return head + [info for info in rounds if info is not None]


async def first_to_succeed(
    attempts: Sequence[Callable[[], Awaitable[T]]],
    delay: float | None,
    discard: Callable[[T], object],
) -> tuple[T | None, list[Exception]]:
    """Start `attempts` one after another; the result of the first to succeed, and the errors.

    The next attempt starts when the one before has failed, or after `delay` seconds (RFC 8305,
    section 5); None starts one only after the other. The losers are cancelled and waited for. A
    loser that succeeded all the same is given to `discard`, as is every result if the caller is
    cancelled. The result is None if all attempts failed.
    """
    errors: list[Exception] = []
    running: set[asyncio.Future[T]] = set()
    waiting = list(reversed(attempts))
    won: asyncio.Future[T] | None = None
    try:
        try:
            while won is None and (waiting or running):
                if waiting:
                    running.add(asyncio.ensure_future(waiting.pop()()))
                done, _ = await asyncio.wait(
                    running,
                    timeout=delay if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in done:
                    running.remove(attempt)
                    error = _failure(attempt)
                    if isinstance(error, Exception):
                        errors.append(error)
                    elif error is not None:
                        raise error
                    elif won is None:
                        won = attempt
                    else:
                        discard(attempt.result())
        finally:
            await _abandon(running, discard)
    except BaseException:
        if won is not None:
            discard(won.result())
        raise
    return (None if won is None else won.result()), errors


def _failure(attempt: "asyncio.Future[T]") -> BaseException | None:
    """Why an attempt failed; one that somebody cancelled has failed like any other."""
    if attempt.cancelled():
        return ConnectionAbortedError(errno.ECONNABORTED, "Connection attempt was cancelled")
    return attempt.exception()


async def _abandon(running: "set[asyncio.Future[T]]", discard: Callable[[T], object]) -> None:
    """Cancel attempts and wait until they have cleaned up after themselves, cancelled or not."""
    for attempt in running:
        attempt.cancel()
    try:
        await until_done(running)
    finally:
        for attempt in running:
            if _failure(attempt) is None:
                discard(attempt.result())
