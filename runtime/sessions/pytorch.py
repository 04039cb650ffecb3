"""PyTorch session, for development: a module as it is, compiled, or captured in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.errors import SessionError, first_line
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import (
    CamBatch,
    SessionInfo,
)
from sshr_deploy.runtime.machine.processor import processor_name
from sshr_deploy.runtime.sessions.base import BaseSession
from sshr_deploy.runtime.sessions.parts import Part, lap
from sshr_deploy.runtime.settings import CPU_BATCH

TorchMode = Literal["eager", "compiled", "cuda-graph"]
_SUFFIX: dict[TorchMode, str] = {"eager": "", "compiled": "-compiled", "cuda-graph": "-graph"}
_WARM_UP = 3
"""Calls before a capture: libraries choose their kernels and allocate in the first ones."""

_Call = Callable[[Tensor], Sequence[Tensor]]


class PyTorchSession(BaseSession):
    """Runs a module where its weights are, after setting it to evaluation mode.

    TF32, which keeps 10 bits of mantissa, is off.

    Args:
        module: uint8 tensors [B, side_px, side_px, 3] to (cam_28_1, cam_28_2, cam_deep, prob),
            as `model.Inference`.
        mode: "eager"; "compiled" by torch.compile; "cuda-graph", which costs one launch a call.
        precision: of the module, for `info`.
        batch: patches in each call of the last two modes, which take one size only: fewer are
            filled up with black ones, more are cut into parts. "eager" takes what comes.
        backend: of torch.compile.
        geometry: of the module's inputs.

    Raises:
        SessionError: the module cannot be compiled or captured here.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        mode: TorchMode = "eager",
        precision: str = "fp32",
        batch: int = CPU_BATCH,
        backend: str | Callable[..., Any] = "inductor",
        geometry: Geometry = PATCH,
    ) -> None:
        self.geometry = geometry
        self.any_side = mode == "eager" and not geometry.is_patch
        module = module.eval()
        self._device = next(module.parameters()).device
        self._size = None if mode == "eager" else batch
        cuda = self._device.type == "cuda"
        self.info = SessionInfo(
            engine=f"pytorch-{self._device.type}{_SUFFIX[mode]}",
            precision=precision,
            device=torch.cuda.get_device_name(self._device) if cuda else processor_name(),
            library=f"torch {torch.__version__}",
            threads=None if cuda else torch.get_num_threads(),
        )
        self._call: _Call | None = module
        if mode == "eager":
            return
        if mode == "cuda-graph" and not cuda:
            raise SessionError(
                f"a CUDA graph needs the network on an NVIDIA GPU, it is on the {self._device}; "
                "choose another mode"
            )
        shape = (batch, *geometry.input_shape())
        try:
            with torch.inference_mode(), _without_tf32():
                blank = torch.zeros(shape, dtype=torch.uint8, device=self._device)
                if mode == "compiled":
                    self._call = torch.compile(module, dynamic=False, backend=backend)
                    self._call(blank)
                else:
                    self._call = _captured(module, blank)
        except Exception as error:  # compilers raise what they like
            cause = getattr(error, "inner_exception", error)  # torch.compile wraps its backend's
            raise SessionError(f"{mode} does not work here: {first_line(cause)}") from error

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        if self._call is None:
            raise SessionError("the session is closed; open it again")
        size = self._size or len(patches)
        parts = [
            self._part(self._call, patches[start : start + size], size)
            for start in range(0, len(patches), size)
        ]
        outputs = (np.concatenate(part) for part in zip(*parts, strict=True))
        return CamBatch(*outputs)

    def close(self) -> None:
        """See `Session.close`; the module stays with the caller."""
        self._call = None

    def _part(
        self, call: _Call, patches: NDArray[np.uint8], size: int
    ) -> list[NDArray[np.float32]]:
        filled = np.zeros((size, *patches.shape[1:]), np.uint8)
        filled[: len(patches)] = patches
        try:
            with torch.inference_mode(), _without_tf32():
                inputs = torch.from_numpy(filled).to(self._device)
                lap(Part.COPY_IN, self._wait)
                outputs = call(inputs)
                lap(Part.ENGINE, self._wait)
                return [output[: len(patches)].cpu().numpy() for output in outputs]
        except RuntimeError as error:  # out of memory is one of them
            raise SessionError(f"{self.info.library} failed: {first_line(error)}") from error

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _captured(module: nn.Module, patches: Tensor) -> _Call:
    """A call that copies patches into a captured graph's input, replays it and gives its outputs.

    The outputs are overwritten by the next call.
    """
    with torch.cuda.device(patches.device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                module(patches)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = module(patches)

    def call(new: Tensor) -> Sequence[Tensor]:
        patches.copy_(new)
        graph.replay()
        return tuple(outputs)

    return call


def _without_tf32() -> AbstractContextManager[None]:
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
