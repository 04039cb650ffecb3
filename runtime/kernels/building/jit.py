"""Launches of kernels that Triton compiles when they are first called, or interprets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sshr_deploy.runtime.kernels.launch import Launch, Variant


def launch(
    kernel: Any,
    variant: Variant,
    launch: Launch,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> None:
    """Start a @triton.jit function on the device of its first output; checks nothing.

    Args:
        kernel: the function; its arguments are inputs, scalars, outputs and constants.
        variant: what it is built with.
        launch: grid and scalars.
        inputs: tensors that are read.
        outputs: tensors that are written.
    """
    with torch.cuda.device_of(outputs[0]):  # type: ignore[no-untyped-call]
        kernel[launch.grid](
            *inputs,
            *launch.scalars,
            *outputs,
            **variant.constants,
            num_warps=variant.num_warps,
            num_stages=variant.num_stages,
            enable_fp_fusion=variant.fuse_multiply_add,
        )
