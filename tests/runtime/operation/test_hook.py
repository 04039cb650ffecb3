from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.operation.events import Code, Event, Events
from sshr_deploy.runtime.operation.hook import Command, Ended, Hook, Post, ended_of
from tests.runtime.operation.events import DONE, SLIDE, event

ENDED = {"slide": str(SLIDE), "folder": "/results", "status": "done", "reason": ""}


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (event(Code.SLIDE_DONE, SLIDE, **DONE), "done"),
        (event(Code.SLIDE_FAILED, reason="bad"), "failed"),
        (event(Code.SLIDE_QUARANTINED, reason="bad"), "quarantined"),
        (event(Code.SLIDE_DONE, SLIDE, **DONE, earlier=True), None),
        (event(Code.SLIDE_FAILED, again_at_utc="2026-02-01T00:00:00+00:00"), None),
        (event(Code.SLIDE_STARTED), None),
        (event(Code.STOPPED, None), None),
    ],
)
def test_a_slide_that_ended_for_good_is_told(told: Event, status: str | None) -> None:
    ended = ended_of(told)
    assert (ended and ended["status"]) == status


def hooked(deliver: object, *events: Event) -> tuple[list[Event], list[str]]:
    """Events and lines that a hook makes of failures."""
    told: list[Event] = []
    said: list[str] = []
    with Hook(deliver, Events(told.append), said.append) as hook:  # type: ignore[arg-type]
        for one in events:
            hook(one)
    return told, said


def test_slides_are_delivered_in_their_order_and_before_the_end() -> None:
    got: list[Ended] = []
    slides = [Path(f"/{n}.svs") for n in range(20)]
    assert hooked(got.append, *(event(Code.SLIDE_DONE, s) for s in slides)) == ([], [])
    assert [ended["slide"] for ended in got] == [str(s.absolute()) for s in slides]


def test_a_failure_is_told_and_the_next_slide_delivered() -> None:
    got = []

    def deliver(ended: Ended) -> None:
        got.append(ended)
        if len(got) == 1:
            raise OSError("no\nroute")

    told, said = hooked(deliver, event(Code.SLIDE_DONE), event(Code.SLIDE_DONE))
    assert [(e.code, e.slide, e.facts["reason"]) for e in told] == [
        (Code.HOOK_FAILED, SLIDE, "no\\nroute")
    ]
    assert len(said) == 1 and len(got) == 2


def test_a_command_gets_its_arguments_whole(tmp_path: Path) -> None:
    out = tmp_path / "got"
    code = "import sys, json; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    text = f"'{sys.executable}' -c \"{code}\" '{out}' --slide={{slide}} {{status}} '' x{{reason}}y"
    slide = "/a; rm -rf $HOME `x` \"{folder}\" 'q'.svs"
    Command(text)({**ENDED, "slide": slide, "reason": "{slide}"})
    assert json.loads(out.read_text()) == [f"--slide={slide}", "done", "", "x{slide}y"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no program"),
        ("no-such-program {slide}", "names no program"),
        ("'open", "cannot be read"),
        (f"'{sys.executable}' {{slide}} {{mask}}", r"\{mask\}; known are \{slide\}, \{folder\}"),
    ],
)
def test_a_command_that_cannot_work_is_refused_at_once(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Command(text)


@pytest.mark.skipif(os.name != "posix", reason="makes a file that can be started")
def test_a_batch_file_is_refused(tmp_path: Path) -> None:
    batch = tmp_path / "done.BAT"
    batch.touch(0o755)
    with pytest.raises(UsageError, match="batch file"):
        Command(f"'{batch}' {{slide}}")


def test_a_command_that_fails_says_its_last_line() -> None:
    code = "import sys; print('first'); sys.exit('disk is full')"
    with pytest.raises(OSError, match="ended with code 1: disk is full"):
        Command(f"'{sys.executable}' -c \"{code}\"")(ENDED)


def test_a_command_that_hangs_is_ended() -> None:
    code = "import time; time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        Command(f"'{sys.executable}' -c \"{code}\"", limit_s=0.2)(ENDED)


@contextmanager
def receiver(*answers: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """An address that answers so, and what it was sent."""
    got: list[dict[str, str]] = []
    codes = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(codes))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=partial(server.serve_forever, poll_interval=0.05))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/done", got
        finally:
            server.shutdown()
            thread.join()


def test_an_address_gets_json_and_is_tried_again() -> None:
    with receiver(503, 204) as (url, got):
        Post(url, pause_s=0)(ENDED)
    assert got == [ENDED, ENDED]


def test_an_address_that_never_takes_it_is_an_error() -> None:
    with receiver(500, 500, 500) as (url, got), pytest.raises(OSError, match="500"):
        Post(url, pause_s=0)(ENDED)
    assert len(got) == 3


@pytest.mark.parametrize("url", ["", "host:80", "file:///etc/passwd", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="`on_done_url`"):
        Post(url)
