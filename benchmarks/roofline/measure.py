"""How near the engines of a bundle come to their ceilings (`sshr-deploy benchmark roofline`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged, reference_of, why_no_speed
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.roofline.ceilings import Ceilings, measure_ceilings
from sshr_deploy.benchmarks.roofline.layers import profile_layers
from sshr_deploy.benchmarks.roofline.rows import Entrant, ceilings_name, layer_facts, row_of
from sshr_deploy.benchmarks.roofline.work import GraphWork, graph_work
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SshrDeployError, counted
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.candidate import Candidate, candidates_for
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.machine.gpus import find_gpus
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep, tell_nobody

_PROFILED_CALLS = 7
WORST = 10
"""Layers that are shown of each engine, and summed up."""


@dataclass(frozen=True)
class RooflineSettings:
    """What a user chooses."""

    batch: int
    """Patches of a call."""
    seconds: float
    """Measuring time of each engine; six calls are made at least."""
    layers: bool = False
    """Profile the layers, too."""
    threads: int | None = None
    """Of the CPU; None chooses by width and cores."""
    allow_unqualified: bool = False
    """Tell speeds of engines whose masks disagree too, without a share."""


def measure_roofline(
    bundle: Bundle,
    contenders: Sequence[Contender],
    settings: RooflineSettings,
    recorder: Recorder,
    on_step: OnStep = tell_nobody,
) -> None:
    """Add a row for each contender, an engine and precision of the bundle, to the recorder.

    A call is `infer`: patches in, CAMs out. The ceilings are measured first and are the facts
    "ceilings" and "gpu_ceilings"; with `settings.layers` each row has a fact "layers".

    Raises:
        BundleError: the bundle's reference set or a graph is broken.
        SessionError: an engine failed in the middle of its calls.
    """
    threads = choose_threads(bundle.manifest.model.width, settings.threads)
    use_threads(threads)
    on_step("ceilings: matrix products and copies")
    ceilings = _ceilings(contenders, threads.count, recorder)
    shown = reference_of(bundle).patches
    patches = np.resize(shown, (settings.batch, *shown.shape[1:]))
    with ExitStack() as sessions:
        entrants: dict[str, Entrant] = {}
        for contender in contenders:
            on_step(f"{contender.name}: opening it, comparing its masks with the reference")
            found = _opened(bundle, contender, settings, recorder, ceilings, sessions)
            if found is not None:
                entrants[contender.name] = found
        _time(bundle, entrants, patches, settings, recorder, threads.count, on_step)


def _time(
    bundle: Bundle,
    entrants: Mapping[str, Entrant],
    patches: NDArray[np.uint8],
    settings: RooflineSettings,
    recorder: Recorder,
    threads: int,
    on_step: OnStep,
) -> None:
    def write(entrant: Entrant) -> None:
        recorder.row(row_of(entrant, settings.batch, recorder.busy()))

    calls: dict[str, Callable[[], object]] = {
        name: partial(entrant.session.infer, patches) for name, entrant in entrants.items()
    }
    on_step(f"{counted(len(calls), 'engine')} in turns")
    try:
        for name, turn in take_turns(calls, seconds=settings.seconds):
            entrants[name].samples_ms += turn
            write(entrants[name])
        for name, entrant in entrants.items() if settings.layers else ():
            on_step(f"{name}: its layers")
            entrant.more_facts |= _layers(bundle, entrant, patches, threads)
            write(entrant)
    finally:  # after Ctrl-C too: what the machine did beside them is known in full only now
        for entrant in entrants.values():
            if entrant.samples_ms:
                write(entrant)


def _ceilings(
    contenders: Sequence[Contender], threads: int, recorder: Recorder
) -> dict[bool, Ceilings]:
    """Of the processor, and under True those of the GPU where there is one and PyTorch with it."""
    precisions = {Precision.FP32, *(contender.precision for contender in contenders)}
    ordered = [precision for precision in Precision if precision in precisions]
    found = {False: measure_ceilings(ordered, threads)}
    recorder.fact(ceilings_name(False), found[False].as_json())
    if find_gpus():
        try:
            import torch

            from sshr_deploy.benchmarks.roofline.gpu_ceilings import measure_gpu_ceilings
        except ModuleNotFoundError:
            recorder.note("the GPU's ceilings need PyTorch: pip install 'sshr-deploy[train]'")
            return found
        if torch.cuda.is_available():
            try:
                found[True] = measure_gpu_ceilings(ordered, torch.device("cuda"))
            except SshrDeployError as error:
                recorder.note(f"the GPU's ceilings were not measured: {error}")
                return found
            recorder.fact(ceilings_name(True), found[True].as_json())
    return found


def _opened(
    bundle: Bundle,
    contender: Contender,
    settings: RooflineSettings,
    recorder: Recorder,
    ceilings: dict[bool, Ceilings],
    sessions: ExitStack,
) -> Entrant | None:
    """The contender if it opens and its masks agree; else None, and a row that says why."""
    agreement = None
    try:
        session = contender.open(settings.batch)
        with ExitStack() as undo:
            undo.enter_context(session)
            agreement = judged(session, contender, bundle)
            reason = why_no_speed(agreement)
            if reason is None or settings.allow_unqualified:
                candidate = _candidate(bundle, contender)
                work = _work(bundle, candidate)
                sessions.push(undo.pop_all())
                own = ceilings.get(candidate.kind.needs_gpu)
                return Entrant(contender, candidate, session, agreement, work, own, [], {})
    except SshrDeployError as error:
        reason = str(error)
    recorder.row(
        Row(
            name=contender.name,
            unit="ms",
            better="lower",
            samples=(),
            not_measured=reason,
            agreement=agreement,
            facts={"precision": str(contender.precision), "batch": settings.batch},
        )
    )
    return None


def _candidate(bundle: Bundle, contender: Contender) -> Candidate:
    candidates = (
        candidate
        for kind in KINDS
        for candidate in candidates_for(bundle, kind, contender.precision)
    )
    return next(candidate for candidate in candidates if str(candidate) == contender.name)


def _work(bundle: Bundle, candidate: Candidate) -> GraphWork:
    own = candidate.precision is candidate.artifact.precision
    path = bundle.file(candidate.artifact.file)
    return graph_work(path, bundle.geometry, None if own else candidate.precision)


def _layers(
    bundle: Bundle, entrant: Entrant, patches: NDArray[np.uint8], threads: int
) -> dict[str, Any]:
    """Facts of a row: its layers, the one that loses most first; or why there are none."""
    candidate = entrant.candidate
    try:
        layers = profile_layers(
            candidate.kind.name,
            bundle.file(candidate.artifact.file),
            candidate.precision,
            entrant.work,
            patches,
            calls=_PROFILED_CALLS,
            threads=threads,
        )
    except SshrDeployError as error:
        return {"layers": [], "layers_not_measured": str(error)}
    assert entrant.ceilings is not None  # those of the processor, which alone has profilers
    rows = [layer_facts(layer, entrant.ceilings) for layer in layers]
    rows.sort(key=lambda row: -row["lost_ms"])
    whole = sum(row["median_ms"] for row in rows)
    lost = sum(row["lost_ms"] for row in rows[:WORST])
    calls_ms = [sum(times) for times in zip(*(layer.samples_ms for layer in layers), strict=True)]
    return {
        "layers": rows,
        "calls_ms": calls_ms,
        "kernels_ms": whole,
        "kernels_without_worst_ms": whole - lost,
    }
