"""Latency and throughput of a bundle's session by batch size (`sshr-deploy benchmark latency`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.contract import PATCH_PX, CamBatch, MaskRule, Session
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.machine.spread import ratio_of, spread_of
from sshr_deploy.runtime.masks import mask_rule, reference_mask

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
            f"`batches` {text!r}: give whole numbers from 1 to {_MAX_BATCH} with commas between"
        )
    return sizes


def measure_latency(
    path: Path, open_session: Callable[[Bundle], Session], batches: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Measure cold start, then warm calls by batch size, then the post-processing alone.

    A call is what a slide's batch takes: from patches to label maps, through the session's stream.
    Patches are noise with a fixed seed: the network is dense, its time does not depend on them.

    Args:
        path: bundle folder.
        open_session: opens the session to measure.
        batches: patches in a call.
        seconds: measuring time for each batch size; at least five calls are made.

    Raises:
        BundleError, SessionError: the bundle or the engine is unusable.
    """
    environment, cold = describe_environment(), dict[str, float]()
    bundle = _timed(cold, "load_and_verify_bundle_s", lambda: load_bundle(path))
    open_session(bundle).close()  # builds and qualifies what is new here, which is not to be timed
    session = _timed(cold, "open_session_s", lambda: open_session(bundle))
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
            "measured_utc": now_utc(),
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
