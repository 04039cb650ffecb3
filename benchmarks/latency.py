"""Latency and throughput of a bundle's session by batch size (`sshr-deploy benchmark latency`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.sessions import PATCH_PX, CamBatch, Session

_WARM_UP_CALLS = 2
_MIN_SAMPLES = 5
_MAX_BATCH = 1024

_T = TypeVar("_T")


def parse_batches(text: str) -> list[int]:
    """ "1,4,8" -> [1, 4, 8], sorted and without doubles.

    Raises:
        UsageError: not whole numbers from 1 to 1024.
    """
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sizes[-1] > _MAX_BATCH:
        raise UsageError(
            f"--batches {text!r}: give whole numbers from 1 to {_MAX_BATCH} with commas between"
        )
    return sizes


def measure_latency(
    path: Path, open_engine: Callable[[Bundle], Session], batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Measure cold start, then warm calls by batch size, then the post-processing.

    Patches are noise with a fixed seed: the network is dense, its time does not depend on them.

    Args:
        path: bundle folder.
        open_engine: opens the session to measure.
        batches: patches in a call.
        seconds: measuring time for each batch size; at least five calls are made.

    Raises:
        BundleError, SessionError: the bundle or the engine is unusable.
    """
    cold: dict[str, float] = {}
    bundle = _timed(cold, "load_and_verify_bundle_s", lambda: load_bundle(path))
    open_engine(bundle).close()  # builds and qualifies what is new here, which is not to be timed
    session = _timed(cold, "open_session_s", lambda: open_engine(bundle))
    noise = np.random.default_rng(0).integers(
        0, 256, (max(batches), PATCH_PX, PATCH_PX, 3), np.uint8
    )
    with session:
        first = _timed(cold, "first_patch_s", lambda: session.infer(noise[:1]))
        samples = _warm_samples(session, noise, batches, seconds)
        gflop = bundle.manifest.model.gflop_per_patch
        return {
            "benchmark": "latency",
            "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": describe_environment(),
            "engine": asdict(session.info),
            "bundle": {
                "manifest_sha256": bundle.manifest_sha256,
                "profile": bundle.manifest.profile.name,
                "width": bundle.manifest.model.width,
                "gflop_per_patch": gflop,
            },
            "cold": cold,
            "rows": [_row(batch, samples[batch], gflop) for batch in batches],
            "mask_ms_per_patch": _mask_samples(bundle, first),
        }


def print_latency(report: dict[str, Any]) -> None:
    """The report as a table on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    engine, cold = report["engine"], report["cold"]
    share_equal = engine["mask_agreement"]
    agreement = "unknown" if share_equal is None else f"{share_equal:.4%}"
    console.print(
        f"{engine['engine']} {engine['precision']} ({engine['library']}), "
        f"width {report['bundle']['width']}, "
        f"on {report['environment']['processor']}, {report['environment']['cores']} cores"
    )
    for name, reason in engine["rejected"].items():
        console.print(f"not {name}: {reason}", markup=False)
    console.print(
        f"cold start: bundle {cold['load_and_verify_bundle_s']:.2f} s, "
        f"session {cold['open_session_s']:.2f} s, "
        f"first patch {cold['first_patch_s']:.3f} s"
    )
    headings = "batch", "calls", "p50 ms", "p95 ms", "p99 ms", "patches/s", "GFLOP/s", "agreement"
    table = Table(*headings)
    for column in table.columns:
        column.justify = "right"
    for row in report["rows"]:
        figures = [
            f"{row[k]:.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "patches_per_s", "gflop_per_s")
        ]
        table.add_row(str(row["batch"]), str(len(row["samples_ms"])), *figures, agreement)
    console.print(table)
    console.print(
        "agreement: share of mask pixels equal to PyTorch's FP32 on the bundle's reference "
        "patches, as found on this machine"
    )
    mask_ms = float(np.median(report["mask_ms_per_patch"]))
    one = report["rows"][0]
    share = mask_ms * one["batch"] / one["p50_ms"]
    console.print(
        f"post-processing: {mask_ms:.2f} ms a patch, "
        f"{share:.1%} of the inference time at batch {one['batch']}"
    )


def _timed(into: dict[str, float], name: str, call: Callable[[], _T]) -> _T:
    start = time.perf_counter()
    result = call()
    into[name] = time.perf_counter() - start
    return result


def _warm_samples(
    session: Session, noise: NDArray[np.uint8], batches: Sequence[int], seconds: float
) -> dict[int, list[float]]:
    """Milliseconds of each call by batch size; the sizes take turns until each had its time."""
    for batch in batches:
        for _ in range(_WARM_UP_CALLS):
            session.infer(noise[:batch])
    samples: dict[int, list[float]] = {batch: [] for batch in batches}
    waiting = list(batches)
    while waiting:
        for batch in list(waiting):
            start = time.perf_counter()
            session.infer(noise[:batch])
            samples[batch].append((time.perf_counter() - start) * 1e3)
            if sum(samples[batch]) >= seconds * 1e3 and len(samples[batch]) >= _MIN_SAMPLES:
                waiting.remove(batch)
    return samples


def _mask_samples(bundle: Bundle, cams: CamBatch, calls: int = 50) -> list[float]:
    """Milliseconds of the reference post-processing, every class switched on (the slowest case)."""
    every_class_on = bundle.manifest.profile.model_copy(update={"gate_threshold": -1.0})
    samples = []
    for _ in range(calls):
        start = time.perf_counter()
        reference_mask(cams, 0, every_class_on, height_px=PATCH_PX, width_px=PATCH_PX)
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def _row(batch: int, samples_ms: list[float], gflop_per_patch: float) -> dict[str, Any]:
    p50, p95, p99 = (float(p) for p in np.percentile(samples_ms, (50, 95, 99)))
    rate = batch * len(samples_ms) / (sum(samples_ms) / 1e3)
    return {
        "batch": batch,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "patches_per_s": rate,
        "gflop_per_s": rate * gflop_per_patch,
        "samples_ms": samples_ms,
    }
