"""Times of `hfrm_cam` with other block sizes than those of its plan: what tuning starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from sshr_deploy.benchmarks.gpu_timing import (
    Call,
    alternate,
    measure_ceilings,
    replay,
    sets_beyond_cache,
    statistics,
)
from sshr_deploy.benchmarks.kernels import (
    BOUND,
    DTYPES,
    Cost,
    OnStep,
    checked,
    ends_of_reference,
    random_level,
)
from sshr_deploy.runtime.kernels.hfrm_cam.op import run
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config

CONFIGS = (
    Config(2, 128, 64, 8, 3),
    Config(2, 128, 64, 8, 4),
    Config(2, 128, 32, 8, 4),
    Config(2, 256, 64, 8, 3),
    Config(2, 256, 64, 16, 3),
    Config(1, 256, 64, 8, 3),
    Config(1, 128, 64, 4, 4),
    Config(4, 128, 64, 8, 3),
    Config(2, 64, 64, 4, 4),
)
"""Candidates for SM 9.0 and four classes; the first is the plan's."""


def measure_configs(
    *,
    device: torch.device,
    configs: Sequence[Config] = CONFIGS,
    shape: tuple[int, int, int] = (512, 28, 28),
    batches: Sequence[int] = (32, 1),
    dtype: str = "fp16",
    seconds: float = 0.2,
    on_step: OnStep = print,
) -> list[dict[str, Any]]:
    """Times by batch size and configuration, on features in channels_last.

    A configuration that the device has no room for is listed with the reason instead of a time.

    Raises:
        SshrDeployError: a result misses its bound.
    """
    ceilings = measure_ceilings(device, DTYPES[dtype])
    rows = []
    for batch in batches:
        on_step(f"block sizes, batch {batch}")
        torch.manual_seed(0)
        size = (batch, *shape)
        sets = sets_beyond_cache(2 * batch * shape[0] * shape[1] * shape[2], device)
        features = [
            torch.randn(size, device=device)
            .to(DTYPES[dtype])
            .contiguous(memory_format=torch.channels_last)
            for _ in range(sets)
        ]
        graphs: dict[str, Call] = {}
        for config in configs:
            row = {"dtype": dtype, "batch": batch, "shape": list(shape), "config": asdict(config)}
            level = random_level(shape[0], batch, DTYPES[dtype], device, rows=config.rows)
            packed = level.packed
            rest = (level.gate, packed.head, packed.context, packed.bias, config)
            calls = [partial(run, feature, *rest) for feature in features]
            try:
                cam = calls[0]()
            except Exception as error:  # Triton has no base class for what does not fit
                rows.append(row | {"failed": f"{type(error).__name__}: {error}".splitlines()[0]})
                continue
            checked(str(config), cam, ends_of_reference(level, features[0]), BOUND[dtype])
            graphs[str(len(rows))] = replay(calls)
            rows.append(row)
        cost = Cost.of(batch, shape, level)
        for index, samples in alternate(graphs, seconds * len(graphs), divisor=sets).items():
            figures = statistics(samples)
            rows[int(index)] |= figures | cost.against(figures["median_ms"], ceilings)
    return rows
