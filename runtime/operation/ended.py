"""Events of slides and images that ended."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from sshr_deploy.errors import (
    InputError,
    MissingMppError,
    OutputError,
    SessionError,
    SlowSlideError,
    SshrDeployError,
)
from sshr_deploy.runtime.operation.events import Code, Events, Fact
from sshr_deploy.runtime.results.findings import InputResult


class Failure(StrEnum):
    """Kinds of failure; stable, so that a monitor may count them."""

    NO_MPP = "no_mpp"
    """The slide has no usable pixel size."""
    SLOW_SLIDE = "slow_slide"
    """It took longer than the longest time for a slide; the next attempt goes on."""
    INPUT = "input"
    """It cannot be read, is damaged, or is nothing to segment; `reason` says which."""
    OUTPUT = "output"
    """Results cannot be written."""
    ENGINE = "engine"
    """The engine failed."""
    DEFECT = "defect"
    """Of this package; `reason` names the file to report it with."""


def failure_of(error: SshrDeployError | None) -> Failure:
    """Kind of a failure by its error; None is that of an input that was never begun."""
    match error:
        case MissingMppError():
            return Failure.NO_MPP
        case SlowSlideError():
            return Failure.SLOW_SLIDE
        case None | InputError():
            return Failure.INPUT
        case OutputError():
            return Failure.OUTPUT
        case SessionError():
            return Failure.ENGINE
    return Failure.DEFECT


def emit_ended(events: Events, result: InputResult, out: Path, **more: Fact) -> None:
    """Emit `SLIDE_DONE` or `SLIDE_FAILED` with facts of a result below `out`, and `more`."""
    summary = result.summary
    if summary is None:
        failure = failure_of(result.error).value
        events.emit(Code.SLIDE_FAILED, result.path, failure=failure, reason=result.reason, **more)
        return
    events.emit(
        Code.SLIDE_DONE,
        result.path,
        earlier=result.status == "skipped",
        folder=str((out / summary.folder).absolute()),
        seconds=summary.seconds.get("total"),
        tissue_mm2=summary.tissue_area_mm2,
        **more,
    )
