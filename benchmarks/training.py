"""Time and memory of a training step (`sshr-deploy benchmark training`).

Three variants take turns: "published" is the recipe `paper` with HFRM in its plain form, "pooled"
the recipe `paper`, "fast" the recipe `fast`. `Trainer` takes the steps, as in training.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.training_hfrm import Calls, hfrm_calls
from sshr_deploy.errors import SshrDeployError, UsageError
from sshr_deploy.model import HFRM, SSHR, ModelConfig, normalise
from sshr_deploy.runtime.contract import PATCH_PX
from sshr_deploy.runtime.machine.spread import spread_of
from sshr_deploy.runtime.machine.threads import choose_threads, use_threads
from sshr_deploy.runtime.progress import OnStep
from sshr_deploy.train.initial_weights import new_model
from sshr_deploy.train.loading import Batch
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.meter import EpochMeter
from sshr_deploy.train.network import TrainingNetwork, build_forward
from sshr_deploy.train.optimiser import build_optimiser, set_rate
from sshr_deploy.train.processes import Processes
from sshr_deploy.train.recipe import (
    HfrmTraining,
    Recipe,
    TrainingPrecision,
    load_recipe,
    recipe_fields,
)
from sshr_deploy.train.trainer import Trainer

BOUNDS = {
    "pooled": {"logits": 1e-4, "gradients": 1e-4, "worst_gradient": 1e-3},
    "fast": {"logits": 5e-2},
}
"""Largest relative errors against "published".

Measured on a CPU, widths 1 to 64: pooled 3e-7, 6e-7, 3e-5; fast 9e-3. The worst gradient is that
of a head's bias, which PyTorch sums inexactly in the plain form (2e-4 for 20 patches). Gradients of
fast have no bound: those of a random network are small differences; BF16 moves them by 0.2 to 0.4.
"""

_RATE_FACTOR = 1e-6  # of the learning rate: the weights hardly move

_WARM_UP_ROUNDS = {"cpu": 1, "cuda": 5}
_Answer = tuple[Tensor, dict[str, Tensor]]  # logits [4, B, N], gradients by parameter


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
        "recipes": {name: recipe_fields(recipe) for name, recipe in _recipes().items()},
        "bounds": BOUNDS,
    }.items():
        recorder.fact(name, value)
    patches = _random_batch(settings.batch, settings.classes, device)
    try:
        model = _random_model(ModelConfig(settings.classes, settings.width), patches.rgb)
        _measure(model, patches, settings.rounds, recorder, on_step)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"`batch` {settings.batch} does not fit the GPU's memory; lower it"
        ) from error


class _Variant:
    """A network of its own and its optimiser, as training builds them; dropout is on."""

    def __init__(self, recipe: Recipe, model: SSHR, batch: Batch) -> None:
        self.recipe, self.batch = recipe, batch
        device = batch.rgb.device
        self.network = TrainingNetwork(copy.deepcopy(model).to(device), recipe)
        optimiser = build_optimiser(self.network.model, recipe)
        forward = build_forward(self.network, recipe, Processes(0, 1, device))
        set_rate(optimiser, _RATE_FACTOR)
        self.trainer = Trainer(forward, optimiser, device, [Path("random patch")] * len(batch.rgb))
        self.network.train()

    def set_precision(self) -> None:
        """`build_forward` switches TF32 off for the whole process: say again what this one has."""
        torch.backends.cudnn.allow_tf32 = self.recipe.precision is not TrainingPrecision.FP32

    def step(self) -> None:
        self.set_precision()
        next(self.trainer.steps(iter([self.batch]), EpochMeter()))

    def answer(self, counter: AbstractContextManager[object]) -> _Answer:
        """Logits without dropout and the gradients of all that learns, on the CPU."""
        self.set_precision()
        self.network.eval()  # frozen batch norms: nothing but dropout changes
        with counter:
            logits = self.trainer.forward(self.batch.rgb)
            labels = self.batch.labels.to(logits.device)
            torch.autograd.backward(total_loss(head_losses(logits, labels)))
        gradients = {
            name: (torch.zeros_like(p) if p.grad is None else p.grad).cpu()
            for name, p in self.network.model.named_parameters()
            if p.requires_grad
        }
        self.trainer.optimiser.zero_grad()
        self.network.train()
        return logits.detach().cpu(), gradients


def _recipes() -> dict[str, Recipe]:
    paper = load_recipe("paper")
    published = replace(paper, hfrm=HfrmTraining.PLAIN)
    return {"published": published, "pooled": paper, "fast": load_recipe("fast")}


def _measure(model: SSHR, batch: Batch, rounds: int, recorder: Recorder, on_step: OnStep) -> None:
    memory = {}
    if batch.rgb.is_cuda:
        on_step("peak memory of each variant ...")
        memory = {name: _peak_memory_mb(r, model, batch) for name, r in _recipes().items()}
    on_step("comparing logits and gradients ...")
    variants = {name: _Variant(recipe, model, batch) for name, recipe in _recipes().items()}
    agreement, gflop = _compare(variants)
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


def _random_batch(batch: int, classes: int, device: torch.device) -> Batch:
    rng = torch.Generator().manual_seed(1)
    rgb = torch.randint(0, 256, (batch, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8, generator=rng)
    labels = torch.randint(0, 2, (batch, classes), generator=rng)
    return Batch(rgb.to(device), labels.float(), torch.arange(batch))


def _random_model(config: ModelConfig, rgb: Tensor) -> SSHR:
    """On the CPU; every term of HFRM counts, as in trained networks.

    The batch norms get the statistics of `rgb`: frozen ones of a new network would let the features
    grow from block to block.
    """
    model = new_model(config, seed=0).eval()
    rng = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, HFRM):
            nn.init.constant_(module.gamma_veto, 0.7)
            nn.init.constant_(module.gamma_context, 0.9)
            nn.init.normal_(module.context_conv.weight, std=0.01, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    with torch.no_grad():
        model.to(rgb.device).features(normalise(rgb))
    return model.cpu()


def _peak_memory_mb(recipe: Recipe, model: SSHR, batch: Batch) -> float:
    """Of CUDA memory in 1e6 bytes, with this variant alone."""
    torch.cuda.reset_peak_memory_stats()
    variant = _Variant(recipe, model, batch)
    for _ in range(3):
        variant.step()
    peak = torch.cuda.max_memory_allocated() / 1e6
    del variant
    torch.compiler.reset()
    gc.collect()  # a compiled network is a reference cycle
    return peak


def _compare(variants: Mapping[str, _Variant]) -> tuple[dict[str, Any], dict[str, float]]:
    """Errors of each variant against "published", and the GFLOP of each one's step."""
    own = {torch.ops.aten.convolution_backward: _convolution_backward_flop}
    new_counter = partial(FlopCounterMode, display=False, custom_mapping=own)
    counters = {"published": new_counter(), "pooled": new_counter()}
    expected = variants["published"].answer(counters["published"])
    agreement = {}
    for name, bounds in BOUNDS.items():
        found = variants[name].answer(counters.get(name, nullcontext()))
        agreement[name] = errors = _errors(found, expected)
        for figure, bound in bounds.items():
            if not errors[figure] <= bound:
                raise SshrDeployError(
                    f"{name}: relative error of {figure} against published {errors[figure]:.1e}, "
                    f"allowed {bound:.0e} ({errors['worst_tensor']}); no speed is reported"
                )
    gflop = {name: counter.get_total_flops() / 1e9 for name, counter in counters.items()}
    return agreement, gflop | {"fast": gflop["pooled"]}


def _convolution_backward_flop(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Shapes in; each gradient takes what the forward took. PyTorch's own count ignores groups."""
    wanted: Sequence[bool] = rest[-1]
    return sum(wanted[:2]) * conv_flop_count(list(x), list(weight), list(gradient))


def _errors(found: _Answer, expected: _Answer) -> dict[str, Any]:
    """RMS of the error over RMS of the expected: logits, all gradients together, the worst one."""
    norm = partial(torch.linalg.vector_norm, dtype=torch.float64)
    names = list(expected[1])
    errors = torch.stack([norm(found[1][name] - expected[1][name]) for name in names])
    sizes = torch.stack([norm(expected[1][name]) for name in names])
    ratios = torch.where(errors == 0, 0, errors / sizes)  # dead channels: 0 / 0
    return {
        "logits": float(norm(found[0] - expected[0]) / norm(expected[0])),
        "gradients": float(norm(errors) / norm(sizes)),
        "worst_gradient": float(ratios.max()),
        "worst_tensor": names[int(ratios.argmax())],
    }


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
