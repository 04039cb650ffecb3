"""Open handles of one slide for several reading threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.slides.opening import open_slide
from sshr_deploy.runtime.slides.reader import SlideReader


class SlideHandles(Closing):
    """As many handles of a slide as threads read it at once, each used by one thread at a time.

    Closing waits for no reader: a handle in use is closed by the thread that gives it back.
    """

    def __init__(self, first: SlideReader) -> None:
        """Own `first`, an open handle; the others are opened as they are needed."""
        self.path = first.path
        self._lock = threading.Lock()
        self._idle = [first]
        self._closed = False

    @contextmanager
    def borrowed(self) -> Iterator[SlideReader]:
        """A handle that nobody else uses in the block.

        Raises:
            InputError: the slide cannot be opened once more.
        """
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        handle = handle or open_slide(self.path)
        try:
            yield handle
        finally:
            with self._lock:
                closed = self._closed
                if not closed:
                    self._idle.append(handle)
            if closed:
                handle.close()

    def close(self) -> None:
        """Close all that is not in use, and the rest when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for handle in idle:
            handle.close()
