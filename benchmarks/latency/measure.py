"""Latency of a bundle's engines and of peers (`sshr-deploy benchmark latency`)."""

from __future__ import annotations

from collections.abc import Sequence

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.trtexec import TrtexecPeer
from sshr_deploy.benchmarks.latency.cold_start import measure_cold_starts
from sshr_deploy.benchmarks.latency.rows import Yardsticks, row_apart
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.latency.warm import gflop_per_input, measure_calls
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.roofline.ceilings import measure_ceilings
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep, tell_nobody


def measure_latency(
    bundle: Bundle,
    contenders: Sequence[Contender],
    settings: LatencySettings,
    recorder: Recorder,
    on_step: OnStep = tell_nobody,
    *,
    apart: Sequence[TrtexecPeer] = (),
) -> None:
    """Add rows to the recorder: cold starts of the engines, then calls of all by batch size.

    The rows are those of `measure_cold_starts` and `measure_calls`; what the processor reaches on
    matrix products is the fact "ceilings". Peers that are measured `apart` time themselves, after
    all others. The fact "inputs" says of what calls are: patches, or fields for
    `Bundle.on_fields`.

    Raises:
        UsageError: the base is none of the contenders.
        BundleError: the bundle's reference set is broken.
        SessionError: an engine failed in the middle of its calls.
    """
    names = [contender.name for contender in contenders]
    if settings.base is not None and settings.base not in names:
        raise UsageError(f"`base` {settings.base!r} is not measured; choose {', '.join(names)}")
    use_threads(choose_threads(bundle.manifest.model.width, settings.threads))
    recorder.fact("inputs", bundle.geometry.inputs)
    if settings.cold_starts:
        measure_cold_starts(
            bundle.path, contenders, settings, recorder, on_step, geometry=bundle.geometry
        )
    on_step("ceilings: matrix products and copies")
    precisions = [contender.precision for contender in contenders]
    ceilings = measure_ceilings(precisions, settings.threads)
    recorder.fact("ceilings", ceilings.as_json())
    measure_calls(bundle, contenders, settings, recorder, ceilings.gflop_per_s, on_step)
    against = Yardsticks(gflop_per_input(bundle), ceilings.gflop_per_s, None, None, None)
    for peer in apart:
        for batch in settings.batches:
            on_step(f"{peer.name}: building and timing batch {batch}")
            allowed = settings.allow_unqualified
            row = peer.measure(batch, settings.seconds, allow_unqualified=allowed)
            recorder.row(row_apart(row, peer, batch, against))
