"""Times of `hfrm_cam` with other block sizes than those of its plan: what tuning starts from.

    python -m sshr_deploy.benchmarks.gpu.kernel_configs [SM]...

compiles the candidates, without a GPU, and prints what each takes; it fails where one spills.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from sshr_deploy.benchmarks.kernel_cost import Cost
from sshr_deploy.benchmarks.kernels import (
    BOUND,
    DTYPES,
    Level,
    check_results,
    checked,
    ends_of_reference,
    random_level,
)
from sshr_deploy.benchmarks.measuring.gpu_timing import (
    Ceilings,
    OnRow,
    Replay,
    alternate_checked,
    check_context,
    keep_to_the_end,
    measure_ceilings,
    sets_beyond_cache,
    statistics,
)
from sshr_deploy.errors import first_line
from sshr_deploy.runtime.kernels.building.compile import assemble, compile_to_ptx, resources
from sshr_deploy.runtime.kernels.hfrm_cam.op import run
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    Config,
    cam_variant,
    choose_config,
)
from sshr_deploy.runtime.kernels.manifest import sm_text
from sshr_deploy.runtime.progress import OnStep

CONFIGS: Mapping[int, tuple[Config, ...]] = {
    89: (
        Config(2, 128, 32, 8, 3, 32),
        Config(2, 128, 32, 8, 4, 32),
        Config(2, 128, 32, 8, 5),
    ),
    90: (
        Config(2, 128, 64, 8, 3, 64),
        Config(2, 128, 64, 8, 4),
        Config(2, 128, 64, 8, 4, 64),
        Config(2, 128, 32, 8, 4, 64),
        Config(1, 256, 64, 8, 3),
        Config(1, 256, 64, 8, 3, 64),
        Config(1, 128, 64, 4, 4, 64),
        Config(2, 64, 64, 4, 4, 64),
    ),
    100: (
        Config(2, 128, 64, 8, 4),
        Config(2, 128, 64, 8, 4, 64),
        Config(1, 128, 64, 4, 4, 64),
    ),
    120: (
        Config(2, 128, 32, 8, 3, 32),
        Config(2, 128, 32, 8, 4, 32),
        Config(2, 128, 32, 8, 5),
    ),
}
"""Candidates for FP16 features and four classes by SM, beside the plan's own; none spills."""


def candidates(sm: int) -> tuple[Config, ...]:
    """Configurations to time on SM `sm`, FP16 and four classes; that of the plan is the first."""
    return (choose_config(sm, "fp16", 4), *CONFIGS.get(sm, ()))


def describe_candidate(config: Config, sm: int) -> tuple[str, bool]:
    """Resources of SM `sm` that a candidate takes by its compiler, a line, and whether it spills.

    Raises:
        KernelError: it does not compile.
    """
    from triton.backends.nvidia.compiler import get_ptxas

    variant = cam_variant(config, "fp16", "nhwc", 4, 4)
    compiled = compile_to_ptx(variant, sm)
    _, report = assemble(compiled, variant.fuse_multiply_add, get_ptxas(sm).path)
    used = resources(report)
    spilled = used["spill_store_bytes"] + used["spill_load_bytes"]
    sizes = " ".join(f"{key} {value}" for key, value in asdict(config).items())
    return (
        f"SM {sm_text(sm):4} {sizes}: {used['registers']} registers, "
        f"{compiled.shared_bytes} bytes shared, {spilled} bytes spilled"
    ), spilled > 0


def measure_configs(
    *,
    device: torch.device,
    configs: Sequence[Config] | None = None,
    shape: tuple[int, int, int] = (512, 28, 28),
    batches: Sequence[int] = (32, 1),
    dtype: str = "fp16",
    seconds: float = 0.2,
    on_step: OnStep = print,
    on_row: OnRow = keep_to_the_end,
) -> list[dict[str, Any]]:
    """Times by batch size and configuration, on features in channels_last.

    `configs` of None are those of `candidates`, for the device. A configuration that the device has
    no room for has the reason as "left_out" instead of a time, one whose result misses its bound as
    "failed". `on_row` is called with each row.

    Raises:
        SshrDeployError: a configuration broke the CUDA context of this process.
    """
    if configs is None:
        major, minor = torch.cuda.get_device_capability(device)
        configs = candidates(10 * major + minor)
    ceilings = measure_ceilings(device, DTYPES[dtype])
    rows: list[dict[str, Any]] = []
    for batch in batches:
        on_step(f"block sizes, batch {batch}")
        for row in _measure_batch(device, configs, (batch, *shape), dtype, seconds, ceilings):
            rows.append(row)
            on_row(row)
    return rows


def _measure_batch(
    device: torch.device,
    configs: Sequence[Config],
    size: tuple[int, int, int, int],
    dtype: str,
    seconds: float,
    ceilings: Ceilings,
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    batch, *shape = size
    features = _features(size, dtype, device)
    rows: dict[str, dict[str, Any]] = {}
    replays: dict[str, Replay] = {}
    references: dict[str, list[Tensor]] = {}
    for config in configs:
        name = str(config)
        rows[name] = {"dtype": dtype, "batch": batch, "shape": shape, "config": asdict(config)}
        level = random_level(shape[0], batch, DTYPES[dtype], device, rows=config.rows)
        references[name] = [ends_of_reference(level, features[i]) for i in (0, -1)]
        try:
            replays[name] = _replay(config, level, features, references[name][0], BOUND[dtype])
        except Exception as error:  # Triton has no base class for what does not fit
            no_room = "out of resource" in str(error)
            reason = f"{type(error).__name__}: {first_line(error)}"
            rows[name]["left_out" if no_room else "failed"] = reason
            check_context(name)

    def check(name: str, cams: Sequence[Tensor]) -> None:
        check_results(name, cams, references=references[name], bound=BOUND[dtype])

    samples, wrong = alternate_checked(
        replays, seconds * len(replays), check, divisor=len(features)
    )
    for name, reason in wrong.items():
        rows[name]["failed"] = reason
    cost = Cost.of(batch, (shape[0], shape[1], shape[2]), level.head_weight)
    for name, values in samples.items():
        figures = statistics(values)
        rows[name] |= figures | cost.against(figures["median_ms"], ceilings)
    return list(rows.values())


def _features(size: tuple[int, int, int, int], dtype: str, device: torch.device) -> list[Tensor]:
    """Random features in channels_last, too many for the cache."""
    sets = sets_beyond_cache(2 * prod(size), device)
    return [
        torch.randn(size, device=device)
        .to(DTYPES[dtype])
        .contiguous(memory_format=torch.channels_last)
        for _ in range(sets)
    ]


def _replay(
    config: Config, level: Level, features: Sequence[Tensor], reference: Tensor, bound: float
) -> Replay:
    """The kernel on each of the features; that on the first one is checked.

    Raises:
        SshrDeployError: its CAM is wrong.
        Exception: of Triton's or the driver's own, for a kernel that does not fit the device.
    """
    packed = level.packed
    rest = (level.gate, packed.head, packed.context, packed.bias, config)
    calls = [partial(run, feature, *rest) for feature in features]
    checked(str(config), calls[0](), reference, bound)
    return Replay(calls)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what each candidate takes of the SMs named (90 for 9.0), or of all; 1 if one spills."""
    parser = argparse.ArgumentParser(description="What each candidate takes of a GPU; none needed.")
    parser.add_argument("sm", nargs="*", type=int, help=f"of {', '.join(map(str, CONFIGS))}")
    sms = parser.parse_args(arguments).sm or list(CONFIGS)
    if unknown := [sm for sm in sms if sm not in CONFIGS]:
        parser.error(f"no candidates for SM {unknown[0]}; there are some for {[*CONFIGS]}")
    spills = 0
    for sm in sms:
        for config in candidates(sm):
            line, spilled = describe_candidate(config, sm)
            print(line, flush=True)
            spills += spilled
    return 1 if spills else 0


if __name__ == "__main__":
    sys.exit(main())
