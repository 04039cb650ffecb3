"""Time and memory of a training step (`sshr-deploy benchmark training`).

Three variants take turns: "published" is the recipe `paper` with HFRM in its plain form, "pooled"
the recipe `paper`, "fast" the recipe `fast`. `Trainer` takes the steps, as in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.training_hfrm import Calls, hfrm_calls
from sshr_deploy.benchmarks.training_variants import (
    BOUNDS,
    Variant,
    compare,
    peak_memory_mb,
    random_batch,
    random_model,
    recipes,
)
from sshr_deploy.errors import UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.train.loading import Batch
from sshr_deploy.train.recipe import recipe_fields

_WARM_UP_ROUNDS = {"cpu": 1, "cuda": 5}


@dataclass(frozen=True)
class TrainingSettings:
    """Of one measurement."""

    width: int
    """Channels of the first convolution."""
    batch: int
    """Patches a step."""
    rounds: int
    """Timed calls of each variant, after one to warm up (CUDA: five)."""
    classes: int
    """Of the CAM heads."""
    threads: int | None = None
    """Of the processor; None chooses by width and cores."""


def usual_batch() -> int:
    """Patches a step: 4 on a CPU, 20 on CUDA."""
    return 20 if torch.cuda.is_available() else 4


def measure_training(settings: TrainingSettings, recorder: Recorder, on_step: OnStep) -> None:
    """Check that the variants agree, then time HFRM alone and whole steps, on CUDA if there is one.

    Args:
        settings: see there.
        recorder: gets a row for each form of HFRM at each level ("HFRM f56, plain") and for each
            variant's step ("step, pooled"), and as facts how far the variants are apart.
        on_step: called with one line when the next part begins.

    Raises:
        SshrDeployError: an error of a variant against "published" is above its bound.
        UsageError: the batch does not fit the GPU's memory.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    use_threads(choose_threads(settings.width, settings.threads))
    for name, value in {
        "device": torch.cuda.get_device_name() if cuda else "processor",
        "threads": torch.get_num_threads(),
        "warm_up_rounds": _WARM_UP_ROUNDS[device.type],
        "recipes": {name: recipe_fields(recipe) for name, recipe in recipes().items()},
        "bounds": BOUNDS,
    }.items():
        recorder.fact(name, value)
    patches = random_batch(settings.batch, settings.classes, device)
    try:
        model = random_model(ModelConfig(settings.classes, settings.width), patches.rgb)
        _measure(model, patches, settings.rounds, recorder, on_step)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"`batch` {settings.batch} does not fit the GPU's memory; lower it"
        ) from error


def _measure(model: SSHR, batch: Batch, rounds: int, recorder: Recorder, on_step: OnStep) -> None:
    memory = {}
    if batch.rgb.is_cuda:
        on_step("peak memory of each variant ...")
        memory = {name: peak_memory_mb(r, model, batch) for name, r in recipes().items()}
    on_step("comparing logits and gradients ...")
    variants = {name: Variant(recipe, model, batch) for name, recipe in recipes().items()}
    agreement, gflop = compare(variants)
    recorder.fact("agreement", agreement)
    on_step("timing HFRM and heads ...")
    variants["published"].set_precision()
    calls = hfrm_calls(variants["published"].network.model, batch.rgb)
    forms = {name.replace(" ", ", "): call for name, call in calls.items()}
    _time("HFRM", forms, rounds, recorder)
    on_step("timing whole steps ...")
    steps = {name: variant.step for name, variant in variants.items()}
    try:
        _time("step", steps, rounds, recorder)
    finally:  # after Ctrl-C too
        measured = {row.name for row in recorder.document.rows}
        for name in variants:
            if f"step, {name}" in measured:
                _complete(recorder, name, len(batch.rgb), gflop[name], memory.get(name))


def _complete(
    recorder: Recorder, name: str, batch: int, gflop: float, memory_mb: float | None
) -> None:
    """Add to the row of a variant's step what follows from its time."""
    row = recorder.document.row(f"step, {name}")
    median_ms = float(np.median(row.samples))
    rates: dict[str, float | None] = {
        "patches_per_s": batch / median_ms * 1e3,
        "gflop_per_step": gflop,
        "gflop_per_s": gflop / median_ms * 1e3,
    }
    if memory_mb is not None:
        rates["peak_memory_mb"] = memory_mb
    recorder.row(row.model_copy(update={"figures": {**row.figures, **rates}}))


def _time(part: str, calls: Calls, rounds: int, recorder: Recorder) -> None:
    """Rows of calls that take turns; "speed_up" is over the plain form, or the published step."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    try:
        for name, ms in _alternate(calls, rounds):
            samples[name].append(ms)
            recorder.row(_row(part, name, samples[name], {}, {}))
    finally:  # after Ctrl-C too
        _compare_times(part, samples, recorder)


def _compare_times(part: str, samples: Mapping[str, Sequence[float]], recorder: Recorder) -> None:
    for name, own in samples.items():
        if not own:
            continue  # stopped before it had its turn, which comes after that of its base
        level, _, form = name.rpartition(", ")
        base = "published" if part == "step" else f"{level}, plain"
        if form == "plain" or name == base:
            recorder.row(_row(part, name, own, {"speed_up": 1.0}, {}))
            continue
        ratio = recorder.ratio((base, samples[base]), (name, own))
        refused = {} if ratio.refused is None else {"speed_up": ratio.refused}
        recorder.row(_row(part, name, own, {"speed_up": ratio.value}, refused))


def _row(
    part: str,
    name: str,
    samples_ms: Sequence[float],
    figures: Mapping[str, float | None],
    refused: dict[str, str],
) -> Row:
    return Row(
        name=f"HFRM {name}" if part == "HFRM" else f"step, {name}",
        unit="ms",
        better="lower",
        samples=tuple(samples_ms),
        figures={**spread_of(samples_ms).figures(), **figures},
        refused=refused,
        facts={"part": part},
    )


def _alternate(calls: Calls, rounds: int) -> Iterator[tuple[str, float]]:
    """Name and milliseconds of each call that counts; the calls take turns, so that a busy moment
    falls on all of them."""
    cuda = torch.cuda.is_available()
    wait: Callable[[], None] = torch.cuda.synchronize if cuda else lambda: None
    warm_up = _WARM_UP_ROUNDS["cuda" if cuda else "cpu"]
    for turn in range(warm_up + rounds):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if turn >= warm_up:
                yield name, (time.perf_counter() - start) * 1e3
