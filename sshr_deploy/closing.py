"""Base of every class that holds a file or an engine."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Makes a class with `close` a context manager."""

    def close(self) -> None:
        """Free what is held; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
