"""Time from the start of a process to its first result, by engine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sshr_deploy.benchmarks.contenders.bundle import patches_in
from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import why_no_speed
from sshr_deploy.benchmarks.latency.first_patch import MARK, FirstPatch, Start
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.child_process import run_child
from sshr_deploy.runtime.progress import OnStep, tell_nobody

_TIMEOUT_S = 3600.0
"""Of one start: TensorRT may build for many minutes."""
_PARTS = ("start_s", "load_s", "open_s", "first_patch_s")

Launch = Callable[[Start], FirstPatch]


def measure_cold_starts(
    bundle: Path,
    contenders: Sequence[Contender],
    settings: LatencySettings,
    recorder: Recorder,
    on_step: OnStep = tell_nobody,
    launch: Launch | None = None,
    *,
    geometry: Geometry = PATCH,
) -> None:
    """Add a row for each engine of the bundle, "NAME, cold start", in seconds, to the recorder.

    Each start is a process of its own; the engines take turns. A start that has to build the
    engine, or to compare it with the reference first, is not among the samples: it happens once on
    a machine, and the row tells it apart. The bundle's files are in the system's cache by then.
    The process of an engine's first start compares its masks with the reference once it is timed;
    an engine whose masks disagree gets no samples unless the user allows it.

    Args:
        bundle: its folder.
        contenders: peers among them are left out.
        settings: of the user.
        recorder: gets the rows.
        on_step: told which start it is.
        launch: starts a process; `start_process` by default.
        geometry: of the inputs, for patches or for fields; the rows of fields are named "NAME, cold
            start on fields".
    """
    waiting = [_Starts(contender, geometry) for contender in contenders if not contender.is_peer]
    for number in range(settings.cold_starts + 1):  # one more for those that have to build first
        for starts in list(waiting):
            if len(starts.counted) == settings.cold_starts:
                continue
            on_step(f"{starts.contender.name}: cold start {number + 1}")
            try:
                starts.add((launch or start_process)(starts.next(bundle, settings)))
                failed = None if settings.allow_unqualified else starts.refused()
            except SessionError as error:
                failed = str(error)
            if failed is not None:
                waiting.remove(starts)
            recorder.row(starts.row(failed))


def start_process(start: Start) -> FirstPatch:
    """Start a process that makes one label map, and wait for its end.

    Raises:
        SessionError: it cannot, with its last line.
    """
    module = "sshr_deploy.benchmarks.latency.first_patch"
    command = [sys.executable, "-m", module, json.dumps(asdict(start))]
    try:
        code, out, err = run_child(command, _TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise SessionError(f"it made no label map within {_TIMEOUT_S / 60:.0f} minutes") from None
    except OSError as error:
        raise SessionError(f"{sys.executable} does not start: {error.strerror}") from error
    lines = (err if code else out).strip().splitlines()
    if code or not lines:
        raise SessionError(lines[-1] if lines else f"its process ended with exit code {code}")
    found = next((line for line in reversed(lines) if line.startswith(MARK)), None)
    if found is None:
        raise SessionError(f"its process told no times: {lines[-1]}")
    content = json.loads(found.removeprefix(MARK))
    return FirstPatch(**{**content, "built": tuple(content["built"])})


class _Starts:
    """Starts of one engine so far."""

    def __init__(self, contender: Contender, geometry: Geometry) -> None:
        self.contender, self._geometry = contender, geometry
        self.engine = contender.name.removesuffix(f" {contender.precision.value}")
        self.counted: list[FirstPatch] = []
        self.building: FirstPatch | None = None
        self.agreement: Agreement | None = None
        """None before the first start."""

    def next(self, bundle: Path, settings: LatencySettings) -> Start:
        """What the next child is told; it starts now."""
        return Start(
            str(bundle),
            self.engine,
            self.contender.precision.value,
            patches_in(max(settings.batches), self._geometry),
            settings.threads,
            settings.allow_unqualified,
            time.monotonic(),
            fields=not self._geometry.is_patch,
            judges=self.agreement is None,
        )

    def add(self, found: FirstPatch) -> None:
        """Take a start; one that had to build does not count."""
        if found.agreement is not None:
            self.agreement = Agreement.model_validate(found.agreement)
        if found.built:
            self.building = found
        else:
            self.counted.append(found)

    def refused(self) -> str | None:
        """Why its times may not be told, which are dropped then; None where they may."""
        reason = why_no_speed(self.agreement)
        if reason is not None:
            self.counted, self.building = [], None
        return reason

    def row(self, failed: str | None) -> Row:
        """All of them; `failed` says why there are no more."""
        kind, building = find_kind(self.engine), self.building
        keeps_files = kind is not None and kind.keeps_files
        disagrees = why_no_speed(self.agreement)
        medians: dict[str, float | None] = {
            part: float(np.median([getattr(found, part) for found in self.counted]))
            for part in _PARTS
            if self.counted
        }
        if failed is None and building is not None and not self.counted:
            failed = f"each start had to build it, or to compare it: {building.built[0]}"
        return Row(
            name=f"{self.contender.name}, cold start"
            + ("" if self._geometry.is_patch else " on fields"),
            unit="s",
            better="lower",
            samples=tuple(sum(getattr(s, part) for part in _PARTS) for s in self.counted),
            not_measured=None if self.counted else failed,
            agreement=self.agreement,
            figures={**medians, "building_s": None if building is None else building.open_s},
            facts={
                "contender": self.contender.name,
                "open": "reloads what was built here" if keeps_files else "prepares the graph anew",
                "starts": [asdict(found) for found in self.counted],
                "building": None if building is None else asdict(building),
                "failed": failed if self.counted else None,
                **({"unqualified": disagrees} if disagrees and self.counted else {}),
            },
        )
