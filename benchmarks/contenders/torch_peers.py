"""Ways in which a PyTorch user would run the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.geometry import Geometry
from sshr_deploy.model import SSHR, Inference
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.model.normalisation import normalise
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.qualification import TOLERANCES
from sshr_deploy.runtime.machine.threads import threads_in_use
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession, TorchMode

Outputs = tuple[Tensor, ...]  # as `Inference.forward` gives them


class Published(nn.Module):
    """The network as published: a patch a call, all four CAMs, the plain form of HFRM.

    The published code has no fields, and its label maps are the product's reference mode.
    """

    def __init__(self, model: SSHR) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor) -> Outputs:
        """uint8 RGB [B, 224, 224, 3] -> the outputs of `Inference.forward`."""
        found = [self._one(patch[None]) for patch in patches]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _one(self, patch: Tensor) -> Outputs:
        cams = self.model(normalise(patch))
        prob = torch.sigmoid(cams.cam_deep.mean((2, 3)))
        rectified = (torch.relu(cam) for cam in (cams.cam_28_1, cams.cam_28_2, cams.cam_deep))
        return *rectified, prob


class Autocast(nn.Module):
    """`module` under `torch.autocast`, its outputs float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self._dtype = module, dtype

    def forward(self, patches: Tensor) -> Outputs:
        """As that of `Inference`."""
        with torch.autocast(patches.device.type, self._dtype):
            outputs = self.module(patches)
        return tuple(output.float() for output in outputs)


@dataclass(frozen=True)
class _Way:
    name: str
    about: str
    module: Callable[[SSHR, Geometry], nn.Module] = Inference
    precision: Precision = Precision.FP32
    mode: TorchMode = "eager"
    compiles: bool = False
    of_gpus: bool = False
    for_fields: bool = True


def _channels_last(model: SSHR, geometry: Geometry) -> nn.Module:
    last: nn.Module = Inference(model, geometry).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return last


def _autocast(dtype: torch.dtype) -> Callable[[SSHR, Geometry], nn.Module]:
    return lambda model, geometry: Autocast(Inference(model, geometry), dtype)


def _compiled(model: SSHR, geometry: Geometry) -> nn.Module:
    module: nn.Module = torch.compile(Inference(model, geometry), dynamic=False)  # type: ignore[assignment]
    return module


_WAYS = (
    _Way("PyTorch eager", "inference mode, whole batches"),
    _Way("PyTorch channels_last", "eager, weights in channels_last", _channels_last),
    _Way(
        "PyTorch compiled", "torch.compile, inductor, for each batch size", _compiled, compiles=True
    ),
    _Way(
        "PyTorch autocast bf16",
        "eager under torch.autocast",
        _autocast(torch.bfloat16),
        Precision.BF16,
    ),
    _Way(
        "PyTorch autocast fp16",
        "eager under torch.autocast",
        _autocast(torch.float16),
        Precision.FP16,
        of_gpus=True,
    ),
    _Way("PyTorch CUDA graph", "eager, captured for one size", mode="cuda-graph", of_gpus=True),
    _Way(
        "PyTorch published forward",
        "a patch a call, all four CAMs",
        lambda model, _: Published(model),
        for_fields=False,
    ),
)


def torch_peers(checkpoint: Path, geometry: Geometry) -> list[Contender]:
    """Contenders on the GPU where PyTorch has one, else on the processor; TF32 is off.

    Args:
        checkpoint: of the bundle.
        geometry: of the inputs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return [
        Contender(
            name=way.name,
            precision=way.precision,
            tolerance=TOLERANCES[way.precision],
            open=partial(_opened, checkpoint, way, geometry, device),
            about=f"{way.about}; on the {'GPU' if device.type == 'cuda' else 'processor'}",
            is_peer=True,
            on_gpu=device.type == "cuda",
            compiles_sizes=way.compiles,
        )
        for way in _WAYS
        if (geometry.is_patch or way.for_fields) and (device.type == "cuda" or not way.of_gpus)
    ]


def _opened(
    checkpoint: Path, way: _Way, geometry: Geometry, device: torch.device, batch: int
) -> Session:
    if (threads := threads_in_use()) is not None:
        torch.set_num_threads(threads.count)
    model = load_checkpoint(checkpoint)
    try:
        module = way.module(model.to(device), geometry)
        session = PyTorchSession(
            module, mode=way.mode, precision=way.precision, batch=batch, geometry=geometry
        )
    except RuntimeError as error:  # out of memory is one of them
        raise SessionError(f"PyTorch failed: {first_line(error)}") from error
    session.info = replace(session.info, engine=way.name)
    if way.compiles:  # in the first call, which shows whether it can be had
        try:
            session.infer(np.zeros((1, *geometry.input_shape()), np.uint8))
        except SessionError as error:
            cause = getattr(error.__cause__, "inner_exception", error.__cause__)
            raise SessionError(
                f"torch.compile does not work here: {first_line(cause or error)}"
            ) from error
    return session
