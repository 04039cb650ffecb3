"""Whether this GPU's driver loads the precompiled kernels that are for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sshr_deploy.errors import KernelError, MissingExtraError, SshrDeployError
from sshr_deploy.runtime.cuda.opening import open_device
from sshr_deploy.runtime.kernels.manifest import Cubin, default_folder, load_manifest, sm_text
from sshr_deploy.runtime.machine.gpus import first_gpu

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.gpu.child import PartOutput

Load = Callable[[Cubin], object]


def load_cubins(output: PartOutput) -> dict[str, Any]:
    """Load every kernel of the manifest that runs on this GPU, those of lesser SMs too.

    Where this installation has no manifest, the kernels are compiled for this GPU first.

    Raises:
        MissingExtraError: there is no manifest, and no Triton to compile with.
        SshrDeployError: some kernels do not load; each is a row with its reason.
    """
    with TemporaryDirectory() as built, _loader() as (how, sm, load):
        cubins, source = _cubins(sm, Path(built), output)
        failed = 0
        for cubin in cubins:
            row = {"kernel": cubin.label, "arch": cubin.arch, "file": cubin.file}
            try:
                load(cubin)
            except SshrDeployError as error:
                failed += 1
                output.row(row | {"failed": str(error)})
            else:
                output.row(row | {"loaded": True})
        if failed or not cubins:
            raise SshrDeployError(
                f"{failed} of {len(cubins)} kernels for SM {sm_text(sm)} do not load"
                if failed
                else f"there is no kernel for SM {sm_text(sm)}"
            )
        return {"library": how, "from": source, "sm": sm, "loaded": len(cubins)}


def _cubins(sm: int, built: Path, output: PartOutput) -> tuple[list[Cubin], str]:
    """Machine code for `sm`, and where it comes from."""
    try:
        manifest = load_manifest(default_folder())
        source = "this installation"
    except KernelError as error:
        from sshr_deploy.runtime.kernels.building.build import SMS, build

        output.on_step(f"cubins: {error}; compiling them for SM {sm_text(sm)}")
        nearest = max((known for known in SMS if known <= sm), default=sm)
        manifest = build(built, [nearest])
        source = f"compiled now by Triton {manifest.triton}"
    code = [cubin for cubin in manifest.cubins if not cubin.file.endswith(".ptx")]
    return [cubin for cubin in code if cubin.runs_on(sm)], source


@contextmanager
def _loader() -> Iterator[tuple[str, int, Load]]:
    """How kernels are loaded, the SM, and what loads one."""
    try:
        device = open_device()
    except MissingExtraError:
        driver = _Driver()
        yield "the driver, through ctypes", driver.sm, driver.load
        return
    with device:
        yield device.library, device.sm, device.load


class _Driver:
    """The few functions of the CUDA driver that load a kernel; device 0.

    Source: CUDA Driver API, "Module Management" and "Primary Context Management".
    """

    def __init__(self) -> None:
        self.sm = first_gpu().sm
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise KernelError(f"NVIDIA's driver cannot be loaded: {error}; install it") from error
        self._context = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), 0)
        self._call("cuCtxSetCurrent", self._context)

    def load(self, cubin: Cubin) -> None:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), cubin.read())
        entry = cubin.entry.encode()
        self._call("cuModuleGetFunction", ctypes.byref(function), module, entry)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise KernelError(f"{name} failed with error {status} of the CUDA driver")
