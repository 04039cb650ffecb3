"""The same slide by our pipeline and by its peers: same tiles, same network, in turns.

Each contender runs once to be judged: its label maps are compared with ours tile by tile, and its
memory is watched. Those that agree are then timed in turns, each a process of its own, so that a
busy moment of the machine falls on all of them. All compute on the processor alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.benchmarks.slides.contenders import OURS, PEERS, SlideContender
from sshr_deploy.benchmarks.slides.job import SlideJob, SlideSettings, prepare_job
from sshr_deploy.benchmarks.slides.process import Finished, run_process
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError, counted, first_line
from sshr_deploy.runtime.machine.spread import Ratio, ratio_of
from sshr_deploy.runtime.machine.threads import usable_cores

Labels = NDArray[np.uint8]

WHOLE, WORK, TILES = "whole process", "without start-up", "tiles alone"
_TILES_DO = (
    "reading, network and label maps, from the first tile that is read to the last label map; not "
    "the search for tissue before, nor the files after"
)
SAME_MASKS = 0.99
"""Share of the mask's pixels that has to be equal. Peers round averaged pixels otherwise, by one
level at most: that moved 0.24 % of labels of a trained network. Other filters (TIAToolbox's cubic,
WSInfer's bilinear) moved 7 and 11 %."""


@dataclass
class _Entry:
    """A contender that was judged, and its timed runs so far."""

    contender: SlideContender
    judged: Finished | None = None
    agreement: Agreement | None = None
    """With our label maps, of ours with PyTorch's; None where there are no label maps."""
    not_measured: str | None = None
    """Why it is not timed."""
    stopped: str | None = None
    """Why it is not timed further, after some runs."""
    runs: list[Finished] = field(default_factory=list)

    def samples_s(self, form: str) -> list[float]:
        """Seconds of each run."""
        if form == TILES:
            return [run.tiles_s for run in self.runs if run.tiles_s is not None]
        return [run.seconds if form == WHOLE else run.work_s for run in self.runs]

    def named_samples(self, form: str) -> tuple[str, list[float]]:
        """For a ratio."""
        name = self.contender.name
        return f"{name}, {form}" if form == TILES else name, self.samples_s(form)


def measure_slides(
    bundle: Bundle,
    slide: Path,
    checkpoint: Path | None,
    *,
    peers: Sequence[SlideContender] = PEERS,
    rounds: int = 5,
    recorder: Recorder,
    settings: SlideSettings | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Record two rows for each contender, "NAME, whole process" and "NAME, without start-up".

    Ours has a third, "NAME, tiles alone": what the peers that make label maps alone do.

    Args:
        bundle: ours, with an FP32 graph for ONNX Runtime.
        slide: with tissue.
        checkpoint: that the bundle was exported from; without it peers by PyTorch are left out.
        peers: to compare with.
        rounds: timed runs of each; from five on ratios are told.
        recorder: gets the rows, anew after each run.
        settings: of the slide.
        on_step: told what comes next.

    Raises:
        InputError: the slide cannot be read, or has no tissue.
        UsageError: the checkpoint is not the bundle's.
        MissingExtraError: PyTorch is not installed; only with a checkpoint.
        SessionError: our own pipeline fails.
    """
    settings = settings or SlideSettings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        on_step("planning the slide and writing the network for the peers")
        job = prepare_job(bundle, slide, checkpoint, folder, settings)
        recorder.fact("tiles", job.tiles)
        recorder.fact("tiles_area_mm2", job.area_mm2)
        runner = _Runner(job, folder, settings.threads)
        entries = [_Entry(contender) for contender in (OURS, *peers)]
        labels: Labels | None = None
        for entry in entries:
            on_step(f"trying {entry.contender.name}")
            labels = _judge(entry, runner, labels)
            _record(entry, entries[0], job, recorder)
        try:
            for turn in range(rounds):
                for entry in _in_order(entries, turn):
                    if entry.not_measured is None and entry.stopped is None:
                        on_step(f"round {turn + 1} of {rounds}: {entry.contender.name}")
                        _time(entry, runner)
                        _record(entry, entries[0], job, recorder)
        finally:  # after Ctrl-C too: ratios over all runs of both sides, and all other work
            for entry in entries:
                _record(entry, entries[0], job, recorder)


def _in_order(entries: list[_Entry], turn: int) -> list[_Entry]:
    """Each round begins with the next, so that nobody always follows the heaviest."""
    first = turn % len(entries)
    return [*entries[first:], *entries[:first]]


class _Runner:
    """Runs contenders on a job, each in a folder of its own that is gone afterwards."""

    def __init__(self, job: SlideJob, folder: Path, threads: int | None) -> None:
        self.job, self._folder, self._threads = job, folder, threads
        self._home = folder / "home"
        self._home.mkdir()

    def run(
        self, contender: SlideContender, *, judge: bool = False
    ) -> tuple[Finished, Labels | None]:
        """One run; with `judge` its memory is watched, and its label maps are read.

        Raises:
            SessionError: it fails, or did other tiles.
        """
        threads = self._threads
        if contender is not OURS:
            threads = threads or usable_cores()
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            out, labels = Path(name), None
            command = contender.command(self.job.file, out)
            environ = contender.environ(threads, self._home)
            try:
                found = run_process(command, environ, watch_memory=judge)
                if judge and contender.has_masks:
                    labels = np.load(out / "labels.npy", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise SessionError(f"it cannot be run: {first_line(error)}") from error
        if found.tiles != self.job.tiles:
            raise SessionError(f"it did {found.tiles} tiles instead of {self.job.tiles}")
        return found, labels


def _judge(entry: _Entry, runner: _Runner, ours: Labels | None) -> Labels | None:
    """Try a contender and compare its label maps with ours; gives ours."""
    contender = entry.contender
    entry.not_measured = contender.cannot_run(has_checkpoint=runner.job.has_checkpoint)
    if entry.not_measured is not None:
        return ours
    try:
        entry.judged, labels = runner.run(contender, judge=True)
    except SessionError as error:
        if contender is OURS:
            raise
        entry.not_measured = str(error)
        return ours
    if ours is None:
        if (share := entry.judged.mask_agreement) is not None:
            entry.agreement = Agreement(masks=share, cam_error=None, misses=())
        return labels
    if labels is not None:
        entry.agreement = _agreement(labels, ours, runner.job.classes)
        if entry.agreement.misses:
            entry.not_measured = f"its masks disagree: {', '.join(entry.agreement.misses)}"
    return ours


def _agreement(labels: Labels, ours: Labels, classes: int) -> Agreement:
    """With our label maps [tiles, 224, 224], where these have tissue."""
    if labels.shape != ours.shape:
        return Agreement(masks=0.0, cam_error=None, misses=(f"label maps {labels.shape}",))
    tissue = ours < classes
    if not tissue.any():
        return Agreement(masks=0.0, cam_error=None, misses=("no pixel of ours has tissue",))
    share = float((labels == ours)[tissue].mean())
    misses = (f"{share:.2%} of pixels equal (at least {SAME_MASKS:.0%})",)
    return Agreement(masks=share, cam_error=None, misses=misses if share < SAME_MASKS else ())


def _time(entry: _Entry, runner: _Runner) -> None:
    """One more timed run; a peer that fails is not measured further, but keeps its runs."""
    try:
        entry.runs.append(runner.run(entry.contender)[0])
    except SessionError as error:
        if entry.contender is OURS:
            raise
        if entry.runs:
            entry.stopped = f"after {counted(len(entry.runs), 'run')}: {error}"
        else:
            entry.not_measured = str(error)


def _record(entry: _Entry, ours: _Entry, job: SlideJob, recorder: Recorder) -> None:
    busy = recorder.busy()
    for form in (WHOLE, WORK):
        recorder.row(_row(entry, ours, form, job, busy))
    if entry is ours and entry.samples_s(TILES):
        recorder.row(_row(entry, ours, TILES, job, busy))


def _row(entry: _Entry, ours: _Entry, form: str, job: SlideJob, busy: str | None) -> Row:
    contender, samples_s = entry.contender, entry.samples_s(form)
    figures: dict[str, float | None] = {}
    refused: dict[str, str] = {}
    if samples_s:
        seconds = float(np.median(samples_s))
        figures |= {"median_s": seconds, "mm2_per_s": job.area_mm2 / seconds}
        for name, ratio in _ratios(entry, ours, form, busy).items():
            figures[name] = ratio.value
            refused |= {} if ratio.refused is None else {name: ratio.refused}
    facts = {"contender": contender.name, "form": form, "does": contender.does}
    if form == TILES:  # stands beside the loops without start-up
        facts = {"contender": f"{contender.name}, {TILES}", "form": WORK, "does": _TILES_DO}
    judged: dict[str, Any] = {}
    if entry.judged is not None:
        judged = {"version": entry.judged.version, "peak_memory_mib": entry.judged.peak_mib}
    if entry.stopped is not None:
        judged["stopped"] = entry.stopped
    return Row(
        name=f"{contender.name}, {form}",
        unit="s",
        better="lower",
        samples=tuple(samples_s),
        not_measured=entry.not_measured,
        agreement=entry.agreement,
        figures=figures,
        refused=refused,
        facts={**facts, "lacks": contender.lacks, "has_masks": contender.has_masks, **judged},
    )


def _ratios(entry: _Entry, ours: _Entry, form: str, busy: str | None) -> dict[str, Ratio]:
    """How many times as long as ours, and as our tiles alone where that is the same work."""
    if entry is ours:
        return {}
    bases = {"times_ours": form}
    if form == WORK and entry.contender.maps_alone and ours.samples_s(TILES):
        bases["times_our_tiles"] = TILES
    if not entry.contender.has_masks:
        busy = f"{entry.contender.name} makes no masks"
    return {
        name: Ratio(None, busy)
        if busy is not None
        else ratio_of(entry.named_samples(form), ours.named_samples(base), "s")
        for name, base in bases.items()
    }
