"""SIGTERM, by which a service manager ends a program: what is in hand is kept."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.stopping import StopRequest


def stop_on_sigterm(stop: StopRequest) -> None:
    """The first SIGTERM asks to stop, a second one ends at once as Ctrl-C does."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_asked:
            signal.default_int_handler(number, frame)
        stop.ask()

    signal.signal(signal.SIGTERM, ask)
