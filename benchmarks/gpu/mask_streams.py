"""Label maps on two CUDA streams at once, as the sessions make them, against the specification.

Each stream has CAMs and labels of its own: upload from pinned memory, `cam_to_mask`, download,
captured once and replayed with other numbers each time, while the other stream works. Nothing of
the sessions themselves is imported: pydantic need not be there.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.buffers import Buffer
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.cuda.streams import Graph, Kernel, Stream
from sshr_deploy.runtime.kernels.cam_to_mask import naive, plan
from sshr_deploy.runtime.kernels.manifest import cubins_or_reason

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.gpu.child import PartOutput

_CLASSES, _CAM_PX, _PATCH_PX = 4, 28, 224
_WEIGHTS, _THRESHOLD = (0.6, 0.2, 0.2), 0.4
_VARIANTS = (plan.RANGES, plan.MASK)
_POISON = 0xFF
_Kernels = tuple[Kernel, Kernel]


def check_streams(output: PartOutput, *, replays: int = 50, batch: int = 2) -> dict[str, Any]:
    """Two streams, `replays` launches of each one's graph; every label has to be right.

    Args:
        output: gets a row for each stream.
        replays: of each stream's graph.
        batch: patches a launch.

    Raises:
        MissingExtraError: neither cuda-core nor pycuda is installed.
        KernelError: the library or a kernel fails.
        SshrDeployError: a label map is wrong; says of which stream and launch.
    """
    rng = np.random.default_rng(0)
    with open_device() as device, TemporaryDirectory() as folder, ExitStack() as undo:
        kernels = _kernels(device, Path(folder))
        lanes = [_Lane.opened(device, kernels, batch, undo) for _ in range(2)]
        for launch in range(replays):
            for lane in lanes:  # both are under way before either is waited for
                lane.start(rng)
            for index, lane in enumerate(lanes):
                wrong = lane.wrong_labels()
                if wrong:
                    raise SshrDeployError(
                        f"stream {index}, launch {launch} of its graph: {wrong} of "
                        f"{lane.labels.array.size} labels differ from the specification's"
                    )
        for index in range(len(lanes)):
            output.row({"stream": index, "launches": replays, "batch": batch, "wrong_labels": 0})
        return {"library": device.library}


def _kernels(device: Device, folder: Path) -> _Kernels:
    """The precompiled kernels, or where this installation has none, built now."""
    names = [(variant.op, variant.name) for variant in _VARIANTS]
    cubins = cubins_or_reason(names, device.sm)
    if isinstance(cubins, str):
        from sshr_deploy.runtime.kernels.building.compile import compile_to

        built = [compile_to(folder, variant, device.sm) for variant in _VARIANTS]
        cubins = dict(zip(names, built, strict=True))
    ranges, mask = (device.load(cubins[name]) for name in names)
    return ranges, mask


class _Mirrored:
    """An array on the device and its twin in pinned memory."""

    def __init__(
        self, device: Device, shape: tuple[int, ...], dtype: DTypeLike, undo: ExitStack
    ) -> None:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        self.buffer = undo.enter_context(device.allocate(nbytes))
        self.pinned = undo.enter_context(device.pinned(nbytes))
        self.array: NDArray[Any] = self.pinned.array.view(dtype).reshape(shape)


@dataclass
class _Lane:
    """One stream with its memory and its graph."""

    device: Device
    stream: Stream
    graph: Graph
    inputs: list[_Mirrored]
    """Three of CAMs [B, N, 28, 28], and probabilities [B, N]."""
    ranges: Buffer
    labels: _Mirrored

    @classmethod
    def opened(cls, device: Device, kernels: _Kernels, batch: int, undo: ExitStack) -> _Lane:
        shape = (batch, _CLASSES, _CAM_PX, _CAM_PX)
        inputs = [_Mirrored(device, shape, np.float32, undo) for _ in range(3)]
        inputs.append(_Mirrored(device, shape[:2], np.float32, undo))
        labels = _Mirrored(device, (batch, _PATCH_PX, _PATCH_PX), np.uint8, undo)
        ranges_bytes = 4 * prod(plan.ranges_shape(batch, _CLASSES))
        ranges = undo.enter_context(device.allocate(ranges_bytes))
        stream = undo.enter_context(device.stream())
        sides: dict[str, Any] = {"height_px": _PATCH_PX, "width_px": _PATCH_PX}
        first = plan.plan_ranges(shape, weights=_WEIGHTS, threshold=_THRESHOLD, **sides)
        second = plan.plan_mask(shape, threshold=_THRESHOLD, **sides)

        def work() -> None:
            for mirrored in inputs:
                stream.upload(mirrored.buffer, mirrored.pinned, mirrored.pinned.nbytes)
            cams = [mirrored.buffer for mirrored in inputs]
            stream.launch(kernels[0], first.grid, (*cams, *first.scalars, ranges))
            stream.launch(kernels[1], second.grid, (*cams, ranges, *second.scalars, labels.buffer))
            stream.download(labels.pinned, labels.buffer, labels.pinned.nbytes)

        return cls(device, stream, stream.capture(work), inputs, ranges, labels)

    def start(self, rng: np.random.Generator) -> None:
        """New numbers, and a launch of the graph that is not waited for."""
        *cams, prob = self.inputs
        for cam in cams:
            cam.array[:] = np.maximum(rng.normal(size=cam.array.shape), 0)
        prob.array[:] = rng.random(prob.array.shape)
        self.labels.array[:] = _POISON
        for buffer in (self.ranges, self.labels.buffer):
            self.device.fill(buffer, _POISON)  # NaN in the ranges
        self.device.synchronize()  # of its own stream; the other lane's goes on
        self.graph.launch()

    def wrong_labels(self) -> int:
        """Labels of the last launch that differ from `naive`'s."""
        self.stream.synchronize()
        *cams, prob = (mirrored.array for mirrored in self.inputs)
        expected = naive.cam_to_mask(
            cams,
            prob,
            weights=_WEIGHTS,
            threshold=_THRESHOLD,
            height_px=_PATCH_PX,
            width_px=_PATCH_PX,
        )
        return int((self.labels.array != expected).sum())
