"""Tells a program or a web address of each slide that ended."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from queue import SimpleQueue
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from sshr_deploy.closing import Closing
from sshr_deploy.errors import UsageError, counted, one_line
from sshr_deploy.runtime.machine.child_process import run_child
from sshr_deploy.runtime.operation.events import Code, Event, Events

LIMIT_S = 60.0
"""Of one command."""
PLACES = ("slide", "folder", "status", "reason")
"""Names that stand in braces in a command."""
_POST_S = 10.0
_POST_TRIES, _POST_PAUSE_S = 3, 2.0
_LAST_WORDS_S = 20.0  # a service manager kills what ends too slowly
_STATUS = {
    Code.SLIDE_DONE: "done",
    Code.SLIDE_FAILED: "failed",
    Code.SLIDE_QUARANTINED: "quarantined",
}
_PLACE = re.compile(r"\{([^{}]*)\}")

Ended = Mapping[str, str]
"""How a slide ended, by the names of `PLACES`; folder and reason may be empty."""
Deliver = Callable[[Ended], None]
"""Delivers it; raises OSError, ValueError or HTTPException where that fails."""


class Hook(Closing):
    """Delivers how slides ended, one after the other, in a thread of its own.

    A listener of `Events`. Each slide is told once: when it is done, or has failed for good. What
    fails is said and emitted as `HOOK_FAILED`; the slide's result stands. What was not delivered
    before the process was killed is not delivered later.
    """

    def __init__(self, deliver: Deliver, told: Events, say: Callable[[str], None]) -> None:
        """`told` are the events that failures are emitted to; `say` takes one line."""
        self._deliver, self._told, self._say = deliver, told, say
        self._waiting: SimpleQueue[tuple[Event, Ended] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="hook", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ended = ended_of(event)
        if ended is not None:
            self._waiting.put((event, ended))

    def close(self) -> None:
        """Wait a while until all is delivered."""
        self._waiting.put(None)
        self._thread.join(_LAST_WORDS_S)
        if self._thread.is_alive():
            left = counted(self._waiting.qsize(), "slide")  # less the end, more the one in hand
            self._say(f"warning: nobody was told of the last {left}: it takes too long")

    def _run(self) -> None:
        while (taken := self._waiting.get()) is not None:
            event, ended = taken
            try:
                self._deliver(ended)
            except (OSError, ValueError, HTTPException, subprocess.SubprocessError) as error:
                reason = one_line(str(error) or type(error).__name__)
                if isinstance(error, subprocess.TimeoutExpired):
                    reason = f"the command took longer than {error.timeout:g} s and was ended"
                self._told.emit(Code.HOOK_FAILED, event.slide, reason=reason)
                self._say(f"warning: nobody was told of {event.slide}: {reason}")


def ended_of(event: Event) -> Ended | None:
    """How a slide ended for good; None for other events, and for what an earlier run did."""
    facts, status = event.facts, _STATUS.get(event.code)
    if status is None or event.slide is None:
        return None
    if facts.get("earlier") or facts.get("again_at_utc"):
        return None
    folder, reason = (str(facts.get(name) or "") for name in ("folder", "reason"))
    slide = str(event.slide.absolute())
    return {"slide": slide, "folder": folder, "status": status, "reason": reason}


class Command:
    """A program that is started without a shell."""

    def __init__(self, text: str, limit_s: float = LIMIT_S) -> None:
        """Take the command line apart, as a POSIX shell would, or on Windows by its quotes.

        Raises:
            UsageError: it is empty, names no program of this machine or an unknown place.
        """
        try:
            words = _words(text)
        except ValueError as error:
            raise UsageError(f"`on_done` {text!r} cannot be read: {error}") from error
        program = shutil.which(words[0]) if words else None
        if program is None:
            raise UsageError(
                f"`on_done` {text!r} names no program that can be started here; give its path"
            )
        if program.lower().endswith((".bat", ".cmd")):
            raise UsageError(
                f"`on_done` {text!r} is a batch file, whose shell would take names of slides for "
                "commands; start a program, such as python or powershell -File"
            )
        unknown = set(_PLACE.findall(" ".join(words))) - set(PLACES)
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACES)
            raise UsageError(f"`on_done` {text!r} holds {{{min(unknown)}}}; known are {known}")
        self._words, self._limit_s = [program, *words[1:]], limit_s

    def __call__(self, ended: Ended) -> None:
        """Run it to its end.

        Raises:
            OSError: it cannot be started or ended with another code than 0.
            ValueError: an argument cannot be passed on.
            TimeoutExpired: it took too long and was killed.
        """
        words = [_PLACE.sub(lambda found: ended[found[1]], word) for word in self._words[1:]]
        code, out, err = run_child([self._words[0], *words], self._limit_s)
        if code:
            said = [line for line in f"{out}\n{err}".splitlines() if line.strip()]
            last = f": {said[-1]}" if said else ""
            raise OSError(f"{self._words[0]} ended with code {code}{last}")


class Post:
    """A web address that gets JSON."""

    def __init__(self, url: str, pause_s: float = _POST_PAUSE_S) -> None:
        """`pause_s` is between tries.

        Raises:
            UsageError: it is no address of HTTP.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise UsageError(f"`on_done_url` {url!r} is no address; give http(s)://HOST[:PORT]/...")
        self._url, self._pause_s = url, pause_s

    def __call__(self, ended: Ended) -> None:
        """Post it, up to three times.

        Raises:
            OSError: nobody took it.
            HTTPException: the answer was no HTTP.
        """
        body = json.dumps(ended).encode()
        request = Request(self._url, body, {"Content-Type": "application/json"}, method="POST")
        for tries_left in reversed(range(_POST_TRIES)):
            try:
                with urlopen(request, timeout=_POST_S):
                    return
            except (OSError, HTTPException):
                if not tries_left:
                    raise
                time.sleep(self._pause_s)


def _words(text: str) -> list[str]:
    if os.name == "posix":
        return shlex.split(text)
    return [word.strip("\"'") for word in shlex.split(text, posix=False)]
