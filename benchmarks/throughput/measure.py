"""Inputs a second by batch and streams, up to the knee (`sshr-deploy benchmark throughput`)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from sshr_deploy.benchmarks.measuring.turns import SETTLE_S, take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.benchmarks.throughput.energy import EnergyMeter
from sshr_deploy.benchmarks.throughput.engine import BundleEngine, engine_facts, refusal
from sshr_deploy.benchmarks.throughput.rates import Load, rate_figures, rate_row, refused_row
from sshr_deploy.benchmarks.throughput.slide_amount import Amount, SlideAmount, input_mm2
from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.kinds import find_kind
from sshr_deploy.runtime.machine.spread import spread_of

KNEE = 0.05
"""The smallest setting within this share of the best rate is the knee."""
_GAIN = 0.02
"""A larger batch that gains less than this gains nothing."""
_PATIENCE = 2
"""Sizes in a row without a gain, behind which no larger one is tried."""
_TRIES = 2
"""Of a size, the faster of which counts: a busy moment must not end the sweep."""


@dataclass
class _Setting:
    batch: int
    streams: int | None
    load: Load
    batches_a_sample: int
    agreement: Agreement
    samples: list[float] = field(default_factory=list)
    energy_j: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    energy_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def name(self) -> str:
        return _name(self.batch, self.streams)

    def facts(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "streams": self.streams,
            **engine_facts(self.load.session, self.agreement),
        }


def measure_throughput(
    engine: BundleEngine,
    recorder: Recorder,
    *,
    batches: Sequence[int],
    streams: Sequence[int],
    seconds: float,
    amount: Amount,
    settle_s: float = SETTLE_S,
) -> None:
    """Measure all settings in turns, through the session's stream; a row each, and the knee.

    Larger batches are not tried where two in a row gained nothing.

    Args:
        engine: of a bundle for patches, or for fields.
        recorder: of the document; rows are recorded as their turns end.
        batches: inputs of a call, ascending.
        streams: calls at the same time, ascending; engines without that choice have none.
        seconds: measuring time of each setting.
        amount: of the slide that slides an hour are told for.
        settle_s: see `take_turns`.

    Raises:
        InputError, UsageError: the slide cannot be planned.
    """
    with ExitStack() as stack:
        sweep = _Sweep(engine, recorder, stack)
        sweep.grow(batches, streams)
        if not sweep.settings:
            return
        slide = amount(sweep.settings[0].load.session)
        if slide is not None:
            recorder.fact("slide", asdict(slide))
        _measure(sweep.settings, recorder, engine, seconds, slide, settle_s)
        _tell_knee(sweep.settings, recorder)


class _Sweep:
    """Finds the settings that are worth measuring, each with an open session."""

    def __init__(self, engine: BundleEngine, recorder: Recorder, stack: ExitStack) -> None:
        self.settings: list[_Setting] = []
        self._engine, self._recorder, self._stack = engine, recorder, stack
        self._static = engine.has_static_batches
        self._sessions: dict[tuple[int, int], tuple[Session, Agreement]] = {}
        self._too_large: set[tuple[int, int]] = set()

    def grow(self, batches: Sequence[int], streams: Sequence[int]) -> None:
        """Try batches of each number of streams."""
        for count in streams:
            best, without_gain = 0.0, 0
            for place, batch in enumerate(batches):
                rate = self._tried(batch, count, batches[-1])
                if rate is None:
                    break
                without_gain = 0 if rate > best * (1 + _GAIN) else without_gain + 1
                best = max(best, rate)
                if without_gain == _PATIENCE:
                    self._note_untried(batches[place + 1 :])
                    break
            if self.settings and self.settings[-1].streams is None:
                break  # the engine has no such choice

    def _note_untried(self, batches: Sequence[int]) -> None:
        if batches:
            streams = self.settings[-1].streams
            with_streams = "" if streams is None else f" with streams {streams}"
            sizes = ", ".join(map(str, batches))
            self._recorder.note(
                f"not tried{with_streams}: batch {sizes}, as {_PATIENCE} in a row gained nothing"
            )

    def _tried(self, batch: int, streams: int, largest: int) -> float | None:
        """Inputs a second, roughly; None where it cannot be measured, which is recorded."""
        name = _name(batch, streams)
        try:
            session, agreement = self._session(batch, streams, largest)
            name = _name(batch, session.info.streams)
            if (why := refusal(agreement, self._engine)) is not None:
                self._refuse(name, why, agreement)
                return None
            load = Load.of(session, self._engine.bundle, batch)
            count = load.batches_a_sample()
            took_s = min(_seconds(load, count) for _ in range(_TRIES))
        except (SessionError, MissingExtraError, MemoryError) as error:
            self._refuse(name, str(error) or "not enough memory", None)
            return None
        self.settings.append(_Setting(batch, session.info.streams, load, count, agreement))
        return count * batch / took_s

    def _session(self, batch: int, streams: int, largest: int) -> tuple[Session, Agreement]:
        """Engines that are made for a batch size are opened for each, the others for the largest.

        Where the largest does not fit, those too are opened for each.
        """
        for size in (batch, largest):
            if (size, streams) in self._sessions:
                return self._sessions[size, streams]
        if self._static is None:  # of what the machine chooses only an open session tells
            with self._engine.open(batch, streams) as session:
                kind = find_kind(session.info.engine)
            self._static = kind is not None and kind.has_static_batches
        size = batch if self._static or (largest, streams) in self._too_large else largest
        try:
            session = self._engine.open(size, streams)
        except (SessionError, MemoryError):
            if size == batch:
                raise
            self._too_large.add((largest, streams))
            size, session = batch, self._engine.open(batch, streams)
        self._stack.enter_context(session)
        self._sessions[size, streams] = session, self._engine.judge(session)
        return self._sessions[size, streams]

    def _refuse(self, name: str, why: str, agreement: Agreement | None) -> None:
        self._recorder.row(refused_row(name, self._engine.bundle.geometry, why, agreement))


def _seconds(load: Load, batches: int) -> float:
    start = time.perf_counter()
    load.run(batches)
    return time.perf_counter() - start


def _name(batch: int, streams: int | None) -> str:
    return f"batch {batch}" + ("" if streams is None else f", streams {streams}")


def _measure(
    settings: Sequence[_Setting],
    recorder: Recorder,
    engine: BundleEngine,
    seconds: float,
    amount: SlideAmount | None,
    settle_s: float,
) -> None:
    by_name = {setting.name: setting for setting in settings}
    calls = {s.name: partial(s.load.run, s.batches_a_sample) for s in settings}
    bundle = engine.bundle
    covers = input_mm2(bundle.geometry, bundle.manifest.profile.mpp_um)
    meter = EnergyMeter(gpu=engine.gpu(settings[0].load.session))
    before, since = meter.joules(), time.perf_counter()
    for name, turn_ms in take_turns(calls, seconds=seconds, settle_s=settle_s):
        setting, now, until = by_name[name], meter.joules(), time.perf_counter()
        for part in now.keys() & before.keys():
            setting.energy_j[part] += now[part] - before[part]
            setting.energy_s[part] += until - since
        inputs = setting.batches_a_sample * setting.batch
        setting.samples += [inputs / (ms / 1e3) for ms in turn_ms]
        watts = {part: joules / setting.energy_s[part] for part, joules in setting.energy_j.items()}
        rate = float(np.median(setting.samples))
        figures = rate_figures(rate, covers, amount, watts)
        row = rate_row(
            name,
            bundle.geometry,
            setting.samples,
            setting.agreement,
            figures,
            setting.facts(),
            recorder.busy(),
        )
        recorder.row(row)
        for reason in meter.unreadable:
            recorder.note(f"energy: {reason}")
        before, since = meter.joules(), time.perf_counter()


def _tell_knee(settings: Sequence[_Setting], recorder: Recorder) -> None:
    """The best setting and the knee, unless the machine was busy."""
    rates = {s.name: float(np.median(s.samples)) for s in settings}
    best = max(rates, key=rates.__getitem__)
    enough = [s for s in settings if rates[s.name] >= (1 - KNEE) * rates[best]]
    knee = min(enough, key=lambda s: (s.batch, s.streams or 1))
    busy = recorder.busy() or next(
        (f"{s.name}: {why}" for s in settings if (why := spread_of(s.samples).busy())), None
    )
    if busy is not None:
        recorder.fact("knee", None)
        recorder.note(f"the knee is not told: {busy}")
        return
    recorder.fact(
        "knee",
        {
            "name": knee.name, "batch": knee.batch, "streams": knee.streams,
            "best": best, "of_best": rates[knee.name] / rates[best],
        },
    )  # fmt: skip
