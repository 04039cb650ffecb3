"""One contract for both libraries, on a GPU that is none; see `fake_gpu`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import KernelArgumentError, KernelError
from sshr_deploy.runtime.cuda.base import Device
from sshr_deploy.runtime.cuda.buffers import Buffer
from sshr_deploy.runtime.cuda.opening import DEVICE_LIBRARIES, open_device
from sshr_deploy.runtime.kernels.manifest import Cubin
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import CODE, ENTRY, OPTIN_BYTES, FakeGpu


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return install_fake_gpu(monkeypatch)


@pytest.fixture(params=DEVICE_LIBRARIES)
def device(request: pytest.FixtureRequest, gpu: FakeGpu) -> Iterator[Device]:
    with open_device(0, request.param) as device:
        yield device


@pytest.fixture
def cubin(tmp_path: Path) -> Cubin:
    (tmp_path / "scale.cubin").write_bytes(CODE)
    return Cubin(
        op="scale",
        variant="fp16",
        sm=86,
        arch="sm_86",
        file="scale.cubin",
        sha256=hashlib.sha256(CODE).hexdigest(),
        ptxas="12.8.93",
        entry=ENTRY,
        parameters=(("x", "*fp16"), ("N", "i32"), ("f", "fp32"), ("y", "*fp32")),
        multiples_of_16=frozenset({"N"}),
        constants={"BLOCK": 128},
        num_warps=4,
        num_stages=1,
        shared_bytes=0,
        registers=16,
        stack_bytes=0,
        spill_store_bytes=0,
        spill_load_bytes=0,
        folder=tmp_path,
    )


def test_a_device_tells_what_it_is(device: Device) -> None:
    assert device.name == "a fake GPU"
    assert device.sm == 89
    assert device.library in ("cuda-core 1.2.2", "pycuda 2026.1")


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8", "int64"])
def test_what_is_uploaded_comes_back(device: Device, dtype: str) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3).T  # not contiguous
    array.flags.writeable = False
    with device.allocate(array.nbytes + 4) as buffer:
        device.upload(buffer, array)
        assert np.array_equal(device.download(buffer, dtype, (3, 2)), array)


def test_an_array_may_change_once_it_is_uploaded(device: Device) -> None:
    array = np.ones(8, np.float32)
    buffer = device.allocate(array.nbytes)
    device.upload(buffer, array)
    array[:] = 2
    assert (device.download(buffer, np.float32, (8,)) == 1).all()


def test_fill_sets_every_byte(device: Device) -> None:
    buffer = device.allocate(5)
    device.fill(buffer, 255)
    assert device.download(buffer, np.uint8, (5,)).tolist() == [255] * 5
    device.fill(buffer)
    assert device.download(buffer, np.uint8, (5,)).tolist() == [0] * 5


def test_a_kernel_gets_its_arguments_and_runs_in_order(
    device: Device, cubin: Cubin, gpu: FakeGpu
) -> None:
    kernel = device.load(cubin)
    x, y = device.allocate(64), device.allocate(128)
    values = np.arange(32, dtype=np.float16)
    device.fill(y, 255)
    device.upload(x, values)
    device.launch(kernel, (2, 3, 1), (x, 32, 0.1, y))
    numpy_grid: Any = np.ones(3, np.int64)
    numpy_arguments: Any = (x, np.int64(16), np.float64(4), y)
    device.launch(kernel, numpy_grid, numpy_arguments)
    device.synchronize()
    wanted = values.astype(np.float32) * np.float32(0.1)
    wanted[:16] = values[:16] * 4
    assert np.array_equal(device.download(y, "float32", (32,)), wanted)
    assert [launch.grid for launch in gpu.launches] == [(2, 3, 1), (1, 1, 1)]
    assert all(launch.block == (128, 1, 1) and launch.shared == 0 for launch in gpu.launches)


@pytest.mark.parametrize("shared_bytes", [48 << 10, (48 << 10) + 1, OPTIN_BYTES])
def test_shared_memory_is_asked_for(
    device: Device, cubin: Cubin, gpu: FakeGpu, shared_bytes: int
) -> None:
    kernel = device.load(replace(cubin, shared_bytes=shared_bytes))
    device.launch(kernel, (1, 1, 1), (device.allocate(64), 0, 1.0, device.allocate(64)))
    assert gpu.launches[0].shared == shared_bytes


def test_more_shared_memory_than_there_is_is_refused(device: Device, cubin: Cubin) -> None:
    wanted = rf"scale fp16 needs {OPTIN_BYTES + 1} bytes of shared memory.*has {OPTIN_BYTES}"
    with pytest.raises(KernelError, match=wanted):
        device.load(replace(cubin, shared_bytes=OPTIN_BYTES + 1))


@pytest.mark.parametrize(("sm", "arch"), [(75, "sm_75"), (90, "sm_90a"), (120, "sm_120a")])
def test_code_for_another_gpu_is_refused(device: Device, cubin: Cubin, sm: int, arch: str) -> None:
    with pytest.raises(KernelError, match=rf"scale fp16 is for {arch}; a fake GPU has SM 8\.9"):
        device.load(replace(cubin, sm=sm, arch=arch))


def test_a_changed_file_is_not_loaded(device: Device, cubin: Cubin) -> None:
    (cubin.folder / cubin.file).write_bytes(CODE + b"!")
    with pytest.raises(KernelError, match=r"scale\.cubin was changed"):
        device.load(cubin)


X, Y, OTHER, CLOSED, SHIFTED = "x", "y", "other", "closed", "shifted"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((X, 32, 1.0), r"takes 4 arguments \(x, N, f, y\); 3 were given"),
        ((X, 32, 1.0, Y, 0), "5 were given"),
        ((X, 32.0, 1.0, Y), r"N is 32\.0; it must be a whole number that fits i32"),
        ((X, True, 1.0, Y), "N is True; it must be a whole number"),
        ((X, 1 << 31, 1.0, Y), "N is 2147483648; it must be a whole number that fits i32"),
        ((X, 24, 1.0, Y), "N is 24; it must be divisible by 16"),
        ((X, X, 1.0, Y), r"N is a buffer; it must be a number \(i32\)"),
        ((X, 32, "1", Y), "f is '1'; it must be a number that fits fp32"),
        ((X, 32, 1e39, Y), r"f is 1e\+39; it must be a number that fits fp32"),
        ((X, 32, 1.0, 4096), r"y is 4096; it must be a buffer \(\*fp32\)"),
        ((X, 32, 1.0, None), "y is None; it must be a buffer"),
        ((CLOSED, 32, 1.0, Y), "x is closed"),
        ((OTHER, 32, 1.0, Y), "x belongs to another device"),
        ((SHIFTED, 32, 1.0, Y), "x is at .*; it must be aligned to 16 bytes"),
    ],
)
def test_wrong_arguments_are_named(
    device: Device, cubin: Cubin, gpu: FakeGpu, arguments: tuple[Any, ...], named: str
) -> None:
    kernel = device.load(cubin)
    with open_device() as second:
        buffers = {name: device.allocate(256) for name in (X, Y, CLOSED)}
        buffers[CLOSED].close()
        buffers[OTHER] = second.allocate(256)
        buffers[SHIFTED] = Buffer(device, object(), buffers[X].pointer + 8, 248)
        with pytest.raises(KernelArgumentError, match=f"^scale fp16:? .*{named}") as caught:
            device.launch(kernel, (1, 1, 1), [buffers.get(a, a) for a in arguments])
    assert "\n" not in str(caught.value)
    assert gpu.launches == []


@pytest.mark.parametrize(
    "grid", [(0, 1, 1), (1, 1), (1, 1, 1, 1), (1.0, 1, 1), (1, 65536, 1), (1 << 31, 1, 1)]
)
def test_a_wrong_grid_is_named(device: Device, cubin: Cubin, grid: Any) -> None:
    kernel = device.load(cubin)
    buffer = device.allocate(256)
    with pytest.raises(KernelArgumentError, match="grid is"):
        device.launch(kernel, grid, (buffer, 16, 1.0, buffer))


def test_a_kernel_of_another_device_is_refused(device: Device, cubin: Cubin) -> None:
    buffer = device.allocate(256)
    with open_device() as second, pytest.raises(KernelArgumentError, match="another device"):
        device.launch(second.load(cubin), (1, 1, 1), (buffer, 16, 1.0, buffer))


def test_copies_that_do_not_fit_are_refused(device: Device) -> None:
    buffer = device.allocate(4)
    with pytest.raises(KernelArgumentError, match="buffer has 4 bytes; it must have 8"):
        device.upload(buffer, np.zeros(8, np.uint8))
    with pytest.raises(KernelArgumentError, match="buffer has 4 bytes; it must have 8"):
        device.download(buffer, np.float32, (2,))
    with pytest.raises(KernelArgumentError, match="byte is 256"):
        device.fill(buffer, 256)
    with pytest.raises(KernelArgumentError, match="nbytes is 0"):
        device.allocate(0)
    buffer.close()
    for use in (device.fill, lambda b: device.download(b, np.uint8, (1,))):
        with pytest.raises(KernelArgumentError, match="buffer is closed"):
            use(buffer)


def test_closing_frees_everything_once(gpu: FakeGpu) -> None:
    for library in DEVICE_LIBRARIES:
        device = open_device(0, library)
        first, second = device.allocate(16), device.allocate(16)
        assert len(gpu.memory) == 2
        first.close()
        first.close()
        assert list(gpu.memory) == [second.pointer]
        device.close()
        device.close()
        second.close()
        assert not gpu.memory
        assert gpu.contexts == 0
        with pytest.raises(KernelError, match="the device is closed; open it again"):
            device.allocate(16)


def test_failures_of_the_library_are_one_line(device: Device, cubin: Cubin, gpu: FakeGpu) -> None:
    with pytest.raises(KernelError, match=f"^{device.library} cannot load scale fp16: named sym"):
        device.load(replace(cubin, entry="another"))
    gpu.fault = "an illegal memory access was encountered"
    with pytest.raises(KernelError, match=f"^{device.library} cannot finish: {gpu.fault}$"):
        device.synchronize()
    gpu.fault = ""
