from __future__ import annotations

import pytest

from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.kernels.cam_to_mask import plan
from sshr_deploy.runtime.sessions.device_masks import DeviceMasks, open_device_masks
from tests.runtime.fake_gpu import FakeGpu
from tests.runtime.fake_kernels import KERNELS


@pytest.fixture
def device(gpu: FakeGpu, library: str) -> Device:
    return open_device(0, library)


def test_it_is_there_for_as_many_classes_as_the_kernels_take(device: Device) -> None:
    masks = open_device_masks(device, plan.MAX_CLASSES)
    assert isinstance(masks, DeviceMasks)
    assert masks.ranges_bytes(5) == 4 * 5 * 3 * 16 * 2
    reason = open_device_masks(device, plan.MAX_CLASSES + 1)
    assert reason == "cam_to_mask takes 16 classes, not 17"


def test_a_kernel_that_cannot_be_loaded_is_a_reason(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(KERNELS, plan.MASK.function)
    reason = open_device_masks(device, 3)
    assert reason == f"{device.library} cannot load cam_to_mask mask: named symbol not found"
