"""Rows of peers that cannot take turns with the others."""

from __future__ import annotations

from collections.abc import Sequence

from sshr_deploy.benchmarks.contenders.parts import Parts
from sshr_deploy.benchmarks.contenders.trtexec import TrtexecPeer
from sshr_deploy.benchmarks.latency.rows import Calls, Yardsticks, row_of, unmeasured_row
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.runtime.progress import OnStep, tell_nobody

_PARTS = ("copy_in", "engine", "copy_out")
_NO_BASE = "it takes no turns with the others and makes no label maps"


def measure_trtexec(
    peers: Sequence[TrtexecPeer],
    settings: LatencySettings,
    recorder: Recorder,
    on_step: OnStep = tell_nobody,
) -> None:
    """Add a row for each peer and batch size; their speed over the others is not told.

    Raises:
        BundleError: the bundle's reference set is broken.
    """
    for peer in peers:
        for batch in settings.batches:
            on_step(f"{peer.name}: batch {batch}, building its engine first")
            row = peer.measure(
                batch, settings.seconds, allow_unqualified=settings.allow_unqualified
            )
            if row.agreement is None or not row.samples:
                reason = row.not_measured or "it gave no times"
                recorder.row(unmeasured_row(peer.name, batch, reason, row.agreement))
                continue
            copy_in, engine, copy_out = (row.figures[f"{name}_ms"] or 0.0 for name in _PARTS)
            calls = Calls(
                peer.name,
                batch,
                peer.artifact.precision,
                row.agreement,
                Parts(copy_in, engine, copy_out, labels_ms=0.0),
                {"peer": True, "about": row.facts["covers"], "cuda_graphs": True},
                list(row.samples),
            )
            gflop = peer.bundle.manifest.model.gflop_per_patch
            recorder.row(row_of(calls, Yardsticks(gflop, {}, None, _NO_BASE, None)))
