"""Parts of `gpu.check` that measure a bundle as its users do; each needs the packages of a run.

The bundle is that of the environment variable BUNDLE.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders
from sshr_deploy.benchmarks.contenders.judging import why_no_speed
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.benchmarks.latency.measure import measure_latency
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.subject import subject_of
from sshr_deploy.benchmarks.throughput.engine import BundleEngine
from sshr_deploy.benchmarks.throughput.measure import measure_throughput
from sshr_deploy.benchmarks.throughput.slide_amount import stated_amount
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.engines.kinds import AUTO, KINDS

BUNDLE = "BUNDLE"
ENGINES = tuple(kind.name for kind in KINDS if kind.needs_gpu)
BATCHES = (1, 8, 32)
_SECONDS = 1.0


def latency(output: PartOutput) -> None:
    """`sshr-deploy benchmark latency` of the engines for GPUs."""
    bundle = _bundle()
    settings = LatencySettings(BATCHES, _SECONDS, cold_starts=1)
    recorder = Recorder("latency", subject_of(bundle), asdict(settings), output.document)
    with recorder:
        contenders = bundle_contenders(bundle, engines=ENGINES, on_step=output.on_step)
        measure_latency(bundle, contenders, settings, recorder, output.on_step)
    _hand_over(recorder, output)


def throughput(output: PartOutput) -> None:
    """`sshr-deploy benchmark throughput` of the engine that this machine would use."""
    bundle = _bundle()
    settings = {"batches": BATCHES, "streams": (1,), "seconds": _SECONDS}
    recorder = Recorder("throughput", subject_of(bundle), settings, output.document)
    with recorder:
        measure_throughput(
            BundleEngine(bundle, AUTO, on_step=output.on_step),
            recorder,
            batches=BATCHES,
            streams=(1,),
            seconds=_SECONDS,
            amount=stated_amount(bundle, None, None),
        )
    _hand_over(recorder, output)


def _bundle() -> Bundle:
    return load_bundle(Path(os.environ[BUNDLE]))


def _hand_over(recorder: Recorder, output: PartOutput) -> None:
    """The rows; one whose masks disagree counts as failed, one without its library does not.

    Raises:
        SshrDeployError: nothing was measured.
    """
    rows = recorder.document.rows
    for row in rows:
        wrong = why_no_speed(row.agreement)
        failed = {} if wrong is None else {"failed": row.not_measured or wrong}
        output.row(row.model_dump(mode="json") | failed)
    if not any(row.samples for row in rows):
        reasons = dict.fromkeys(row.not_measured for row in rows if row.not_measured)
        raise SshrDeployError("no engine could be measured: " + "; ".join(reasons))
