"""Time of calls of open sessions, by batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged, reference_of, why_no_speed
from sshr_deploy.benchmarks.contenders.parts import Parts, parts_of_call
from sshr_deploy.benchmarks.latency.rows import (
    Calls,
    Yardsticks,
    row_name,
    row_of,
    unmeasured_row,
)
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.measuring.turns import settle, take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError, SshrDeployError, counted
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.progress import OnStep, tell_nobody

_BASES = ("PyTorch eager", "onnx-cpu fp32")
"""That the others are compared with unless the user chooses; the first that is there."""
_CALLS_IN_PARTS = 5
"""Calls that are split into their parts: on a GPU they take longer than those that are timed."""


def measure_calls(
    bundle: Bundle,
    contenders: Sequence[Contender],
    settings: LatencySettings,
    recorder: Recorder,
    ceilings_gflop_per_s: Mapping[Precision, float],
    on_step: OnStep = tell_nobody,
) -> None:
    """Add a row for each contender and batch size, "NAME, batch B", to the recorder.

    A call is what a slide's batch takes, through the session's stream: from patches to label maps,
    or from fields to CAMs, where the bundle is that of `Bundle.on_fields`.
    The contenders take turns; their masks are compared with the reference before they are timed.
    Inputs are those of the bundle's reference. Every row is written as it grows; one that cannot
    be measured says why. Without a `base` speeds are over PyTorch's, else over ONNX Runtime's in
    FP32, else over the first, the same at all batch sizes.

    Raises:
        BundleError: the bundle's reference set is broken.
    """
    shown = reference_of(bundle).patches
    rule = mask_rule(bundle.manifest.profile) if bundle.geometry.is_patch else None
    with ExitStack() as sessions:
        entrants = []
        for contender in contenders:
            on_step(f"{contender.name}: opening it, comparing its masks with the reference")
            entrants += _opened(bundle, contender, settings, recorder, sessions)
        base = settings.base or _default_base(entrants)
        tables = []
        try:
            for batch in settings.batches:
                patches = np.resize(shown, (batch, *shown.shape[1:]))
                table = _Table(bundle, settings, recorder, ceilings_gflop_per_s, batch, base)
                tables.append(table)
                on_step(f"batch {batch}: {len(entrants)} ways in turns")
                table.measure(entrants, patches, rule)
        finally:  # after Ctrl-C too: what the machine did beside them is known in full only now
            for table in tables:
                table.write()


@dataclass(frozen=True)
class _Entrant:
    """A contender that is open, with its CUDA graphs or without."""

    name: str
    contender: Contender
    session: Session
    agreement: Agreement
    cuda_graphs: bool | None = None
    """None where there is no such choice."""

    def call(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> None:
        """One call as a slide makes it."""
        self._choose_graphs()
        with _lack_of_memory():
            for _ in self.session.stream([(None, patches)], rule):
                pass

    def judged_at(self, batch: int, bundle: Bundle) -> Agreement:
        """Of calls of so many patches, where the engine has code of its own for them."""
        if not self.contender.depends_on_size:
            return self.agreement
        self._choose_graphs()
        with _lack_of_memory():
            return judged(self.session, self.contender, bundle, batch=batch)

    def _choose_graphs(self) -> None:
        if self.cuda_graphs is not None:
            self.session.cuda_graphs = self.cuda_graphs

    def same_as_with_graphs(self) -> str | None:
        """Why it is not timed, once its session could capture no call; None where it is."""
        if self.cuda_graphs is False and self.session.cuda_graphs is None:
            return f"{self.contender.name} has no CUDA graphs either; its notes say why"
        return None

    def facts(self) -> dict[str, Any]:
        """For the row: the engine as it is by now."""
        return {
            "peer": self.contender.is_peer,
            "about": self.contender.about,
            "session": asdict(self.session.info),
            "streams": self.session.info.streams,
            "labels_on_device": self.session.labels_on_device,
            "cuda_graphs": None if self.session.cuda_graphs is None else self.cuda_graphs,
        }


@contextmanager
def _lack_of_memory() -> Iterator[None]:
    """As an error of a session, which ends the way and not the run."""
    try:
        yield
    except MemoryError as error:
        raise SessionError("this machine has not enough memory for it") from error


def _opened(
    bundle: Bundle,
    contender: Contender,
    settings: LatencySettings,
    recorder: Recorder,
    sessions: ExitStack,
) -> list[_Entrant]:
    """Ways of the contender, or none and rows that say why.

    Where calls share the threads, a call alone has a part of them only: then it is opened for one
    call at a time too.
    """
    given = (bundle, contender, settings, recorder, sessions)
    found = _opened_as(contender.name, contender.open, *given)
    one_stream = contender.open_one_stream
    if found and one_stream is not None and (found[0].session.info.streams or 1) > 1:
        found += _opened_as(f"{contender.name}, 1 stream", one_stream, *given)
    return found


def _opened_as(
    name: str,
    opened: Callable[[int], Session],
    bundle: Bundle,
    contender: Contender,
    settings: LatencySettings,
    recorder: Recorder,
    sessions: ExitStack,
) -> list[_Entrant]:
    """The contender if it opens and its masks agree; else none, and rows that say why."""
    agreement = None
    try:
        with _lack_of_memory(), ExitStack() as undo:
            session = undo.enter_context(opened(max(settings.batches)))
            agreement = judged(session, contender, bundle)
            reason = why_no_speed(agreement)
            if reason is None or settings.allow_unqualified:
                sessions.push(undo.pop_all())
                graphs = session.cuda_graphs
                ways = [_Entrant(name, contender, session, agreement, graphs)]
                if graphs:
                    other = f"{name} without CUDA graphs"
                    ways.append(_Entrant(other, contender, session, agreement, cuda_graphs=False))
                return ways
    except SshrDeployError as error:
        reason = str(error)
    for batch in settings.batches:
        inputs = inputs_word(bundle.geometry)
        recorder.row(unmeasured_row(name, batch, reason, agreement, inputs))
    return []


def _default_base(entrants: Sequence[_Entrant]) -> str | None:
    """One for all batch sizes; None where no masks agree."""
    able = [entrant.name for entrant in entrants if why_no_speed(entrant.agreement) is None]
    return next((name for name in (*_BASES, *able) if name in able), None)


class _Table:
    """The rows of one batch size."""

    def __init__(
        self,
        bundle: Bundle,
        settings: LatencySettings,
        recorder: Recorder,
        ceilings_gflop_per_s: Mapping[Precision, float],
        batch: int,
        base: str | None,
    ) -> None:
        self._ceilings_gflop_per_s = ceilings_gflop_per_s
        self._bundle, self._gflop_per_input = bundle, gflop_per_input(bundle)
        self._inputs = inputs_word(bundle.geometry)
        self._settings, self._recorder, self._batch = settings, recorder, batch
        self._base = base
        self._calls: dict[str, Calls] = {}

    def measure(
        self, entrants: Sequence[_Entrant], patches: NDArray[np.uint8], rule: MaskRule | None
    ) -> None:
        """Time all entrants in turns; each turn is written. One that fails leaves the others."""
        in_turns: dict[str, Callable[[], None]] = {}
        for entrant in entrants:
            try:
                agreement = entrant.judged_at(self._batch, self._bundle)
                reason = why_no_speed(agreement)
                if reason is not None and not self._settings.allow_unqualified:
                    row = unmeasured_row(entrant.name, self._batch, reason, agreement, self._inputs)
                    self._recorder.row(row)
                    continue
                parts = _parts(entrant, patches, rule)
                refused = entrant.same_as_with_graphs()
            except SshrDeployError as error:  # such as too little memory for this batch
                refused = str(error)
            if refused is not None:
                self._recorder.row(
                    unmeasured_row(entrant.name, self._batch, refused, inputs=self._inputs)
                )
                continue
            self._calls[entrant.name] = Calls(
                entrant.name,
                self._batch,
                entrant.contender.precision,
                agreement,
                parts,
                entrant.facts(),
                on_gpu=entrant.contender.on_gpu,
                inputs=self._inputs,
            )
            in_turns[entrant.name] = partial(entrant.call, patches, rule)
        seconds = self._settings.seconds
        for name, samples_ms in take_turns(in_turns, seconds=seconds, on_failure=self._failed):
            self._calls[name].samples_ms += samples_ms
            self._recorder.row(row_of(self._calls[name], self._yardsticks()))

    def _failed(self, name: str, error: SshrDeployError) -> None:
        calls = self._calls[name]
        if not calls.samples_ms:
            row = unmeasured_row(name, self._batch, str(error), calls.agreement, self._inputs)
            self._recorder.row(row)
            return
        calls.facts["failed"] = str(error)
        made = counted(len(calls.samples_ms), "call")
        told = row_name(name, self._batch, self._inputs)
        self._recorder.note(f"{told}: it failed after {made}: {error}")

    def write(self) -> None:
        """Write all rows anew, as what they are compared with has changed meanwhile."""
        against = self._yardsticks()
        for calls in self._calls.values():
            if calls.samples_ms:
                self._recorder.row(row_of(calls, against))

    def _yardsticks(self) -> Yardsticks:
        able = [c for c in self._calls.values() if c.samples_ms and c.disagrees is None]
        base = next((c for c in able if c.name == self._base), None)
        missing = f"{self._base or 'what to compare with'} was not measured at batch {self._batch}"
        return Yardsticks(
            self._gflop_per_input,
            self._ceilings_gflop_per_s,
            base,
            None if base is not None else missing,
            self._recorder.busy(),
        )


def gflop_per_input(bundle: Bundle) -> float:
    """Of a patch, or of a field, whose convolutions are as many more as it has pixels."""
    return bundle.manifest.model.gflop_per_patch * (bundle.geometry.side_px / PATCH_PX) ** 2


def inputs_word(geometry: Geometry) -> str:
    """ "patches" or "fields"."""
    return "patches" if geometry.is_patch else "fields"


def _parts(entrant: _Entrant, patches: NDArray[np.uint8], rule: MaskRule | None) -> Parts:
    """Medians of the parts of a few calls, after some that warm up."""
    settle(partial(entrant.call, patches, rule))
    found = [parts_of_call(entrant.session, patches, rule) for _ in range(_CALLS_IN_PARTS)]
    columns = zip(*(asdict(parts).values() for parts in found), strict=True)
    return Parts(*(float(np.median(column)) for column in columns))
