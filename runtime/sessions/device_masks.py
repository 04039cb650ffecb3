"""Label maps on the device that holds the CAMs, by the precompiled `cam_to_mask` kernels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sshr_deploy.errors import KernelError
from sshr_deploy.runtime.contract import PATCH_PX, MaskRule
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.buffers import Buffer
from sshr_deploy.runtime.cuda.streams import Kernel, Stream
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.kernels.manifest import cubins_or_reason

_VARIANTS = [(variant.op, variant.name) for variant in (plan.RANGES, plan.MASK)]
_CAM_PX = PATCH_PX // 8


class DeviceMasks:
    """The two kernels, loaded for CAMs of `classes`; `open_device_masks` makes it."""

    def __init__(self, ranges: Kernel, mask: Kernel, classes: int) -> None:
        self._ranges = ranges
        self._mask = mask
        self._classes = classes

    def ranges_bytes(self, batch: int) -> int:
        """Size of the buffer between the kernels for up to `batch` patches."""
        return 4 * prod(plan.ranges_shape(batch, self._classes))

    def launch(
        self,
        stream: Stream,
        outputs: Sequence[Buffer],  # three of [B, N, 28, 28] and [B, N], float32
        ranges: Buffer,
        labels: Buffer,  # [B, 224, 224], uint8
        batch: int,
        rule: MaskRule,
    ) -> None:
        """Ask `stream` for the label maps of `batch` patches by `rule`."""
        shape = (batch, self._classes, _CAM_PX, _CAM_PX)
        first = plan.plan_ranges(
            shape,
            weights=rule.weights,
            threshold=rule.threshold,
            height_px=PATCH_PX,
            width_px=PATCH_PX,
        )
        second = plan.plan_mask(
            shape, threshold=rule.threshold, height_px=PATCH_PX, width_px=PATCH_PX
        )
        stream.launch(self._ranges, first.grid, (*outputs, *first.scalars, ranges))
        stream.launch(self._mask, second.grid, (*outputs, ranges, *second.scalars, labels))


def open_device_masks(device: Device, classes: int) -> DeviceMasks | str:
    """The kernels on `device`, or one line that says why the CPU makes the label maps."""
    if classes > plan.MAX_CLASSES:
        return f"cam_to_mask takes {plan.MAX_CLASSES} classes, not {classes}"
    cubins = cubins_or_reason(_VARIANTS, device.sm)
    if isinstance(cubins, str):
        return cubins
    try:
        ranges, mask = (device.load(cubins[variant]) for variant in _VARIANTS)
    except KernelError as error:
        return str(error)
    return DeviceMasks(ranges, mask, classes)
