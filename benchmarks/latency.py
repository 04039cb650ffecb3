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

from sshr_deploy.benchmarks.environment import describe_environment, machine_text
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.contract import PATCH_PX, CamBatch, MaskRule, Session
from sshr_deploy.runtime.machine.spread import ratio_of, refusals, spread_of
from sshr_deploy.runtime.masks import mask_rule, reference_mask

_WARM_UP_CALLS = 2
_MIN_SAMPLES = 5
_MAX_BATCH = 1024
_COLUMNS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "patches_per_s": "patches/s",
    "gflop_per_s": "GFLOP/s",
}

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
            f"`batches` {text!r}: give whole numbers from 1 to {_MAX_BATCH} with commas between"
        )
    return sizes


def measure_latency(
    path: Path, open_engine: Callable[[Bundle], Session], batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Measure cold start, then warm calls by batch size, then the post-processing alone.

    A call is what a slide's batch takes: from patches to label maps, through the session's stream.
    Patches are noise with a fixed seed: the network is dense, its time does not depend on them.

    Args:
        path: bundle folder.
        open_engine: opens the session to measure.
        batches: patches in a call.
        seconds: measuring time for each batch size; at least five calls are made.

    Raises:
        BundleError, SessionError: the bundle or the engine is unusable.
    """
    environment, cold = describe_environment(), dict[str, float]()
    bundle = _timed(cold, "load_and_verify_bundle_s", lambda: load_bundle(path))
    open_engine(bundle).close()  # builds and qualifies what is new here, which is not to be timed
    session = _timed(cold, "open_session_s", lambda: open_engine(bundle))
    noise = np.random.default_rng(0).integers(
        0, 256, (max(batches), PATCH_PX, PATCH_PX, 3), np.uint8
    )
    with session:
        rule = mask_rule(bundle.manifest.profile)
        _timed(cold, "first_patch_s", lambda: _call(session, noise[:1], rule))
        samples = _warm_samples(session, noise, batches, seconds, rule)
        mask_ms = _mask_samples(bundle, session.infer(noise[:1]))
        gflop = bundle.manifest.model.gflop_per_patch
        return {
            "benchmark": "latency",
            "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "environment": environment,
            "engine": asdict(session.info),
            "bundle": {
                "manifest_sha256": bundle.manifest_sha256,
                "profile": bundle.manifest.profile.name,
                "width": bundle.manifest.model.width,
                "gflop_per_patch": gflop,
            },
            "cold": cold,
            "rows": [_row(batch, samples[batch], gflop) for batch in batches],
            "labels_on_device": session.labels_on_device,
            "mask_ms_per_patch": mask_ms,
            **_mask_share(mask_ms, batches[0], samples[batches[0]]),
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
        f"on {machine_text(report['environment'], engine['threads'])}"
    )
    for name, reason in engine["rejected"].items():
        console.print(f"not {name}: {reason}", markup=False)
    console.print(
        f"cold start: bundle {cold['load_and_verify_bundle_s']:.2f} s, "
        f"session {cold['open_session_s']:.2f} s, "
        f"first patch {cold['first_patch_s']:.3f} s"
    )
    table = Table("batch", "calls", *_COLUMNS.values(), "agreement", box=None, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
        column.no_wrap = str(column.header).endswith("p75 ms")  # it would lose its end
    for row in report["rows"]:
        figures = [f"{row[key]:.1f}" if key in row else "-" for key in _COLUMNS]
        figures[1] += f"-{row['p75_ms']:.1f}"
        table.add_row(str(row["batch"]), str(len(row["samples_ms"])), *figures, agreement)
    console.print(table)
    console.print(
        "agreement: share of mask pixels equal to PyTorch's FP32 on the bundle's reference "
        "patches, as found on this machine"
    )
    console.print(_post_processing(report))
    for row in report["rows"]:
        if (busy := spread_of(row["samples_ms"]).busy()) is not None:
            console.print(f"batch {row['batch']}: {busy}; measure again when it is quiet")
    for reason in refusals([report]):
        console.print(f"not reported: {reason}")


def _post_processing(report: dict[str, Any]) -> str:
    mask_ms, share = spread_of(report["mask_ms_per_patch"]).median_ms, report["mask_share"]
    if report["labels_on_device"]:
        return f"label maps are made on the GPU; the CPU takes {mask_ms:.2f} ms a patch"
    batch = report["rows"][0]["batch"]
    told = "" if share is None else f", {share:.1%} of a call at batch {batch}"
    return f"post-processing: {mask_ms:.2f} ms a patch{told}"


def _call(session: Session, patches: NDArray[np.uint8], rule: MaskRule) -> None:
    """One call as a slide makes it."""
    for _ in session.stream([(None, patches)], rule):
        pass


def _timed(into: dict[str, float], name: str, call: Callable[[], _T]) -> _T:
    start = time.perf_counter()
    result = call()
    into[name] = time.perf_counter() - start
    return result


def _warm_samples(
    session: Session,
    noise: NDArray[np.uint8],
    batches: Sequence[int],
    seconds: float,
    rule: MaskRule,
) -> dict[int, list[float]]:
    """Milliseconds of each call by batch size; the sizes take turns until each had its time."""
    for batch in batches:
        for _ in range(_WARM_UP_CALLS):
            _call(session, noise[:batch], rule)
    samples: dict[int, list[float]] = {batch: [] for batch in batches}
    waiting = list(batches)
    while waiting:
        for batch in list(waiting):
            start = time.perf_counter()
            _call(session, noise[:batch], rule)
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


def _mask_share(mask_ms: list[float], batch: int, calls_ms: list[float]) -> dict[str, Any]:
    """Time of the post-processing over that of a whole call, by patch."""
    whole = [ms / batch for ms in calls_ms]
    ratio = ratio_of(("post-processing", mask_ms), (f"calls at batch {batch}", whole))
    return ratio.fields("mask_share")


def _row(batch: int, samples_ms: list[float], gflop_per_patch: float) -> dict[str, Any]:
    rate = batch * len(samples_ms) / (sum(samples_ms) / 1e3)
    return {
        "batch": batch,
        **spread_of(samples_ms).figures(),
        "patches_per_s": rate,
        "gflop_per_s": rate * gflop_per_patch,
        "samples_ms": samples_ms,
    }
