"""Objects that belong to one loop, by key: for what shall exist once a loop."""

from collections.abc import Callable, Hashable
from typing import Any

Removed = Callable[[Any], object]
"""Told of an object that has left."""

Failed = Callable[[dict[str, Any]], object]
"""asyncio's `call_exception_handler`."""


class LocalObjects:
    """Thread: the loop's."""

    def __init__(self) -> None:
        self._objects: dict[Hashable, tuple[Any, Removed | None]] = {}

    def put(self, key: Hashable, value: Any, on_removed: Removed | None) -> None:
        replaced = self._objects.get(key)
        self._objects[key] = value, on_removed
        if replaced is not None:
            _tell(*replaced)

    def fetch(self, key: Hashable) -> Any:
        return self._objects[key][0]

    def remove(self, key: Hashable) -> bool:
        removed = self._objects.pop(key, None)
        if removed is None:
            return False
        _tell(*removed)
        return True

    def close(self, failed: Failed) -> None:
        """Remove all, the newest first; what their callbacks raise goes to `failed`."""
        while self._objects:
            key, (value, on_removed) = self._objects.popitem()
            try:
                _tell(value, on_removed)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                message = f"Exception in the removal callback of the local object {key!r}"
                failed({"message": message, "exception": exc})

    def disown(self) -> None:
        """This process is a forked child: the objects are its parent's."""
        self._objects.clear()


def _tell(value: Any, on_removed: Removed | None) -> None:
    if on_removed is not None:
        on_removed(value)
