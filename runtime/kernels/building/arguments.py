"""Checks of what a kernel is called with, once, in the function that users call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sshr_deploy.errors import KernelArgumentError
from sshr_deploy.runtime.kernels.building.interpreter import interpreting

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | str],
    dtypes: Sequence[torch.dtype] = FLOATS,
    *,
    like: Tensor | None = None,
) -> None:
    """Check one argument.

    Args:
        name: of the argument, for the message.
        tensor: the argument.
        shape: a size, or a letter such as "C" that stands for any size of at least 1, by axis.
        dtypes: those that are accepted.
        like: a checked argument on whose device this one has to be; without it, the device has to
            be one that a Triton kernel runs on.

    Raises:
        KernelArgumentError: names the argument, what it is and what it should be.
    """
    if tensor.dtype not in dtypes:
        wanted = " or ".join(_dtype_name(dtype) for dtype in dtypes)
        raise KernelArgumentError(f"{name} is {_dtype_name(tensor.dtype)}; it must be {wanted}")
    fits = tensor.ndim == len(shape) and all(
        size >= 1 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in shape)
        raise KernelArgumentError(f"{name} is {list(tensor.shape)}; it must be [{wanted}]")
    if like is not None and tensor.device != like.device:
        raise KernelArgumentError(
            f"{name} is on {tensor.device}; it must be on {like.device} like the others"
        )
    if like is None and not (tensor.is_cuda or interpreting()):
        raise KernelArgumentError(
            f"{name} is on {tensor.device}; it must be on a CUDA device "
            "(set TRITON_INTERPRET=1 before the start to run kernels on a CPU, slowly)"
        )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
