"""Which library a device is opened with, and whether the libraries have the names we use."""

from __future__ import annotations

import importlib
import sys

import pytest

from sshr_deploy.errors import KernelError, MissingExtraError, UsageError
from sshr_deploy.runtime.cuda.opening import open_device
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.fake_gpu import FakeGpu
from tests.runtime.fake_pycuda import fake_pycuda

MODULES = ("cuda.core", "cuda.bindings.driver", "pycuda", "pycuda.driver")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return install_fake_gpu(monkeypatch)


def test_the_better_library_is_taken(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_device() as device:
        assert (device.library, device.rejected) == ("cuda-core 1.2.2", {})
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with open_device() as device:
        assert device.library == "pycuda 2026.1"
        assert device.rejected == {
            "cuda-core": "cuda-core is not installed: pip install 'sshr-deploy[gpu]'"
        }


def test_without_a_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"cuda-core is not installed.*\[gpu\]"):
        open_device()
    with pytest.raises(KernelError, match="pycuda is not installed"):
        open_device(library="pycuda")


def test_libraries_that_do_not_start_say_why(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError, match=r"cuda-core: .* device 7: device_id.*; pycuda: .*ordin"):
        open_device(7)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(KernelError, match="cuda-core cannot start"):
        open_device(library="cuda-core")
    gpu.fault = "out of memory"
    with pytest.raises(KernelError, match="out of memory"):
        open_device(library="pycuda")
    assert gpu.contexts == 0
    monkeypatch.delattr(sys.modules["cuda.core"], "launch")
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", sys.modules["pycuda"])
    with pytest.raises(KernelError, match=r"older than 0\.5"):
        open_device(library="cuda-core")


def test_unknown_libraries_are_refused() -> None:
    with pytest.raises(UsageError, match="no library named 'cupy'; choose auto, cuda-core, pycuda"):
        open_device(library="cupy")


def test_the_names_are_those_of_cuda_core() -> None:
    core = pytest.importorskip("cuda.core")
    driver = pytest.importorskip("cuda.bindings.driver")
    wanted = {
        "Device": ("set_current", "compute_capability", "name", "properties", "create_stream"),
        "Buffer": ("handle", "close"),
        "Stream": ("handle", "sync", "close"),
        "ObjectCode": ("from_cubin", "get_kernel"),
        "LaunchConfig": ("grid", "block", "shmem_size"),
    }
    for name, members in wanted.items():
        assert set(members) <= set(dir(getattr(core, name)))
    assert {"device_id", "allocate"} <= set(dir(core.Device))
    assert {"handle", "_handle"} & set(dir(importlib.import_module("cuda.core._module").Kernel))
    properties = importlib.import_module("cuda.core._device").DeviceProperties
    assert hasattr(properties, "max_shared_memory_per_block_optin")
    assert callable(core.launch) and core.__version__
    assert driver.CUresult.CUDA_SUCCESS == 0
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert attribute == 8
    assert driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL == 1
    arguments = {
        "cuMemcpyHtoDAsync": 4,
        "cuMemcpyDtoHAsync": 4,
        "cuMemsetD8Async": 4,
        "cuMemAllocHost": 1,
        "cuMemFreeHost": 1,
        "cuStreamBeginCapture": 2,
        "cuStreamEndCapture": 1,
        "cuGraphInstantiate": 2,
        "cuGraphLaunch": 2,
        "cuGraphDestroy": 1,
        "cuGraphExecDestroy": 1,
        "cuKernelSetAttribute": 4,
    }
    for function, count in arguments.items():
        signature = str(getattr(driver, function).__doc__).splitlines()[0]
        assert signature.startswith(f"{function}(") and signature.count(",") == count - 1


def test_the_names_are_those_of_pycuda() -> None:
    driver = pytest.importorskip("pycuda.driver", exc_type=ImportError)
    for name in fake_pycuda(FakeGpu())["pycuda.driver"].__dict__:
        assert name.startswith("_") or hasattr(driver, name)
    assert {"push", "pop", "detach"} <= set(dir(driver.Context))
    assert {"name", "compute_capability", "get_attribute"} <= set(dir(driver.Device))
    assert hasattr(driver.Device, "retain_primary_context")
    assert {"set_attribute", "__call__"} <= set(dir(driver.Function))
    assert hasattr(driver.device_attribute, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
    assert hasattr(driver.function_attribute, "MAX_DYNAMIC_SHARED_SIZE_BYTES")
