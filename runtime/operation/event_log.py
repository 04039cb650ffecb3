"""A log of events for programs: one JSON object a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from sshr_deploy.atomic import output_errors
from sshr_deploy.runtime.operation.events import Event

STANDARD_OUTPUT = Path("-")


class EventLog:
    """Appends events to a file, or prints them on standard output; a listener of `Events`.

    The file is opened for each line, so that it may be renamed, truncated or removed at any time by
    whoever rotates logs, and a share may come back. What cannot be written is lost and said once;
    the work goes on.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Log to `path`, `-` for standard output; `say` takes one line for a person.

        Raises:
            OutputError: the file cannot be made.
        """
        self._path, self._say = path, say
        self._lock = Lock()
        self._begin = ""
        self._failing = False
        if path != STANDARD_OUTPUT:
            with output_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._append("")

    def __call__(self, event: Event) -> None:
        """Write one line; for any thread."""
        line = json.dumps(as_json(event), ensure_ascii=False) + "\n"
        with self._lock:
            try:
                self._append(self._begin + line)
            except (OSError, ValueError) as error:  # ValueError: standard output is closed
                self._begin = "\n"  # a part of the line may be there
                if not self._failing:
                    reason = getattr(error, "strerror", None) or error
                    self._say(f"warning: {self._path} takes no events: {reason}; the work goes on")
                self._failing = True
            else:
                self._begin, self._failing = "", False

    def _append(self, text: str) -> None:
        if self._path == STANDARD_OUTPUT:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        # A file name that is not UTF-8 holds surrogates, and \udcXX is valid JSON.
        with self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as log:
            log.write(text)


def as_json(event: Event) -> dict[str, str | int | float | bool | None]:
    """An event as one flat object: time_utc, code, slide (null without one), then its facts."""
    slide = None if event.slide is None else str(event.slide.absolute())
    return {"time_utc": event.time_utc, "code": event.code.value, "slide": slide, **event.facts}
