"""Experimental: a compiled `hfrm_cam_kernel` as TensorRT launches it; no TensorRT here.

TensorRT passes a kernel the pointers of the inputs, then 32-bit integers, then the pointer of the
output, and launches it once: no floats, no workspace, no second kernel, no cluster, no cooperative
launch. Triton ends every kernel with two scratch pointers more; older releases of TensorRT leave
those unset, so the build cuts them off. PTX of SM 8.0 runs on every later GPU too, which PTX with
an "a" in its target (Triton's from SM 9.0 on) does not; so there is one build of each kernel
(`plan.plugin_variants`), and nothing depends on the GPU of the engine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    PLUGIN_SM,
    Config,
    make_plan,
    plugin_variants,
)
from sshr_deploy.runtime.kernels.launch import Variant
from sshr_deploy.runtime.kernels.manifest import default_folder, load_manifest

MAX_SHARED_BYTES = 48 << 10
"""A block gets them without asking; whether TensorRT asks for more is not known."""


@dataclass(frozen=True)
class AotKernel:
    """A build of `hfrm_cam_kernel` that TensorRT can launch."""

    entry: str
    """Name of the kernel in the PTX."""
    ptx: str
    """Without Triton's two trailing scratch parameters."""
    threads: int
    """Of a block."""
    shared_bytes: int
    """Dynamic shared memory of a block."""


KernelFinder = Callable[[Variant], AotKernel]
"""The build of one of `plan.plugin_variants`."""


def plugin_variant(name: str) -> Variant:
    """The variant of that name, "plugin-fp16-nchw-n4", among `plan.plugin_variants`.

    Raises:
        KernelError: there is none.
    """
    found = {variant.name: variant for variant in plugin_variants()}
    if name not in found:
        raise KernelError(f"hfrm_cam has no variant {name}; it has {', '.join(found)}")
    return found[name]


def precompiled_kernels(folder: Path | None = None) -> KernelFinder:
    """Finds the builds that `make kernels` made; no Triton.

    Args:
        folder: of the manifest; that of this installation by default.

    Returns:
        A finder, which raises KernelError where a build is missing, changed or of another plan.

    Raises:
        KernelError: there are no precompiled kernels, or their manifest is broken.
    """
    manifest = load_manifest(folder or default_folder())

    def find(variant: Variant) -> AotKernel:
        cubin = manifest.find(variant.op, variant.name, PLUGIN_SM)
        for name in ("constants", "multiples_of_16", "num_warps", "num_stages"):
            built, planned = getattr(cubin, name), getattr(variant, name)
            if built != planned:
                raise KernelError(
                    f"{cubin.label} was built with another {name} than its plan has; "
                    "`make kernels` builds it again"
                )
        ptx = cubin.read().decode()
        return AotKernel(cubin.entry, ptx, cubin.num_warps * 32, cubin.shared_bytes)

    return find


@dataclass(frozen=True)
class BatchLaunch:
    """A launch for every batch size B: the grid is (ceil(B * strips / tile_strips), across, 1)."""

    strips: int
    """Of one image."""
    tile_strips: int
    """Strips that one program computes."""
    across: int
    scalars: tuple[int, ...]
    """The kernel's integers after the first, which is B."""


def batch_launch(
    config: Config, image: tuple[int, int, int], classes: int, strides: Sequence[int]
) -> BatchLaunch:
    """The plan (`make_plan`) of a single launch, with the batch size left open.

    Args:
        config: the block sizes that the kernel is built with.
        image: C, H, W.
        classes: N.
        strides: of the feature [B, C, H, W], in elements.

    Raises:
        KernelArgumentError: the map is too large for 32-bit offsets.
    """
    _, height, width = image
    launch = make_plan(config, (1, *image), strides, classes, 1, splits=1).cam
    scalars = tuple(int(scalar) for scalar in launch.scalars[1:])
    strips = math.ceil(height / config.rows)
    return BatchLaunch(
        strips, config.block_p // min(width, config.block_p), launch.grid[1], scalars
    )


def check_kernel(kernel: AotKernel, variant: Variant) -> None:
    """Check that TensorRT can launch it: parameters, threads and shared memory.

    Raises:
        KernelError: names the first thing that differs.
    """
    entry = re.search(rf"\.entry\s+{re.escape(kernel.entry)}\s*\(([^)]*)\)", kernel.ptx)
    if entry is None:
        raise KernelError(f"the PTX of {variant.name} has no entry {kernel.entry}; build it again")
    found = re.findall(r"\.param\s+\.([a-z]\d+)", entry[1])
    wanted = ["u64" if kind.startswith("*") else "u32" for kind in variant.signature.values()]
    if [kind.replace("b", "u") for kind in found] != wanted:
        raise KernelError(
            f"the PTX of {variant.name} takes {len(found)} parameters ({', '.join(found)}); "
            f"TensorRT passes {len(wanted)} ({', '.join(wanted)})"
        )
    if kernel.threads != variant.num_warps * 32:
        raise KernelError(
            f"{variant.name} is built for {kernel.threads} threads a block; "
            f"its plan says {variant.num_warps * 32}"
        )
    if kernel.shared_bytes > MAX_SHARED_BYTES:
        raise KernelError(
            f"{variant.name} takes {kernel.shared_bytes} bytes of shared memory; "
            f"give its plan smaller blocks, for at most {MAX_SHARED_BYTES}"
        )
