"""The plugin against stand-ins for the bindings, which check what the real ones check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import KernelArgumentError, KernelError, MissingExtraError
from sshr_deploy.export.plugin.aot_kernel import (
    AotKernel,
    check_kernel,
    plugin_variant,
    precompiled_kernels,
)
from sshr_deploy.export.plugin.tensorrt_plugin import register_plugins
from sshr_deploy.runtime.kernels import manifest
from sshr_deploy.runtime.kernels.hfrm_cam.plan import (
    make_plan,
    padded_classes,
    plugin_config,
    plugin_variants,
)
from sshr_deploy.runtime.kernels.launch import Variant
from tests.runtime.engines.building.fake_tensorrt import (
    DataType,
    Plugin,
    PluginModule,
    Symbol,
    TensorDesc,
    TensorFormat,
    fake_modules,
)

FLOAT, HALF = DataType.FLOAT, DataType.HALF
LINEAR, HWC8 = TensorFormat.LINEAR, TensorFormat.HWC8
BUILT = ("plugin-fp16-nchw-n16", "plugin-fp16-nhwc-n4")
MAPS = {"28_1": (512, 28, 28), "28_2": (1024, 28, 28), "56": (256, 56, 56), "small": (32, 20, 12)}


def ptx_of(variant: Variant, extra: int = 0) -> str:
    kinds = [
        ".u64 .ptr .global .align 1" if kind.startswith("*") else ".u32"
        for kind in [*variant.signature.values(), *["*i8"] * extra]
    ]
    names = ",\n".join(f"\t.param {kind} kernel_param_{i}" for i, kind in enumerate(kinds))
    return (
        f".version 8.7\n.target sm_80\n.visible .entry kernel(\n{names}\n)\n.reqntid 256\n{{\n}}\n"
    )


def kernel_of(variant: Variant, extra: int = 0) -> AotKernel:
    return AotKernel("kernel", ptx_of(variant, extra), variant.num_warps * 32, 32768)


@pytest.fixture
def trtp(monkeypatch: pytest.MonkeyPatch) -> PluginModule:
    modules = fake_modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    plugins: PluginModule = modules["tensorrt.plugin"]
    return plugins


def registered(trtp: PluginModule) -> Plugin:
    register_plugins(kernel_of)
    return trtp.plugins["sshr_deploy::hfrm_cam"]


def tensors(image: tuple[int, int, int], classes: int, dtype: DataType) -> dict[str, TensorDesc]:
    channels, padded = image[0], padded_classes(classes)
    config = plugin_config("fp16" if dtype is HALF else "fp32", classes)
    return {
        "feature": TensorDesc((-1, *image), dtype),
        "gate": TensorDesc((-1, channels), FLOAT),
        "head": TensorDesc((channels, padded), dtype),
        "context": TensorDesc((14 + config.rows, channels, config.columns(classes)), dtype),
        "bias": TensorDesc((classes,), FLOAT),
    }


def built(plugin: Plugin, inputs: dict[str, TensorDesc]) -> Any:
    assert plugin.aot_impl is not None
    return plugin.aot_impl(**inputs, outputs=[plugin.register(**inputs)], tactic=0)


def value(symbol: Any, batch: int) -> int:
    return Symbol(symbol).at(batch)


@pytest.mark.parametrize("dtype", [FLOAT, HALF])
def test_output_is_float32_of_the_classes(trtp: PluginModule, dtype: DataType) -> None:
    cam = registered(trtp).register(**tensors((512, 28, 28), 3, dtype))
    assert cam.dtype is FLOAT
    assert [value(size, 5) for size in cam.shape_expr] == [5, 3, 28, 28]


@pytest.mark.parametrize(
    ("name", "classes"), [(m, n) for m in MAPS for n in (1, 4, 7, 16) if (m, n) != ("56", 16)]
)
@pytest.mark.parametrize(("dtype", "layout"), [(FLOAT, LINEAR), (HALF, LINEAR), (HALF, HWC8)])
def test_launch_is_the_plan_at_every_batch_size(
    trtp: PluginModule, classes: int, name: str, dtype: DataType, layout: TensorFormat
) -> None:
    image = MAPS[name]
    inputs = tensors(image, classes, dtype)
    inputs["feature"].format = layout
    text = "fp16" if dtype is HALF else "fp32"
    config = plugin_config(text, classes)
    entry, ptx, launch, scalars = built(registered(trtp), inputs)
    channels, height, width = image
    strides = [height * width, width, 1] if layout is LINEAR else [1, width * channels, channels]
    for batch in (1, 2, 3, 31, 128):
        plan = make_plan(
            config, (batch, *image), [channels * height * width, *strides], classes, 1, splits=1
        )
        grid = tuple(value(size, batch) for size in (launch.grid_x, launch.grid_y, launch.grid_z))
        assert grid == plan.cam.grid
        assert [value(scalar, batch) for scalar in scalars] == list(plan.cam.scalars)
    variant = f"plugin-{text}-{'nchw' if layout is LINEAR else 'nhwc'}-n{padded_classes(classes)}"
    assert (entry, ptx) == ("kernel", ptx_of(plugin_variant(variant)))
    assert (launch.block_x, launch.shared_mem) == (config.num_warps * 32, 32768)


@pytest.mark.parametrize(
    ("image", "dtype", "layouts"),
    [
        ((512, 28, 28), FLOAT, ["LINEAR"]),
        ((512, 28, 28), HALF, ["LINEAR", "HWC8"]),
        ((8, 28, 28), HALF, ["LINEAR"]),
    ],
)
def test_types_stay_and_layouts_are_tensorrts(
    trtp: PluginModule, image: tuple[int, int, int], dtype: DataType, layouts: list[str]
) -> None:
    plugin, inputs = registered(trtp), tensors(image, 4, dtype)
    assert plugin.autotune is not None
    offered = plugin.autotune(**inputs, outputs=[plugin.register(**inputs)])
    half = "FP16" if dtype is HALF else "FP32"
    for combination in offered:
        assert combination.io_types == f"{half}, FP32, {half}, {half}, FP32, FP32"
    found = [combination.layouts.split(", ") for combination in offered]
    assert found == [[layout, *["LINEAR"] * 5] for layout in layouts]
    golden = Path(__file__).parents[2] / "golden" / "tensorrt_names.json"
    for modules in json.loads(golden.read_text()).values():
        assert {f"TensorFormat.{layout}" for layout in layouts} <= set(modules["tensorrt"])


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("feature", (-1, -1, 28, 28), "dynamic axis"),
        ("bias", (-1,), "dynamic axis"),
        ("bias", (17,), "bias is [17]; it must be [N] with N from 1 to 16"),
        ("gate", (-1, 64), "gate is [-1, 64]; packed for the plugin it must end in [512]"),
        ("head", (512, 8), "head is [512, 8]; packed for the plugin it must end in [512, 4]"),
        ("context", (15, 512, 64), "[15, 512, 64]; packed for the plugin it must end in [16, 512"),
        ("feature", (-1, 512, 28, 26), "stride_c is 728; plugin-fp16-nchw-n4 needs a multiple of"),
        ("feature", (-1, 512, 8, 6), "W is 6; plugin-fp16-nchw-n4 needs a multiple of 4"),
        ("feature", (-1, 512, 16, 128), "W is 128; plugin-fp16-nchw-n4 takes at most 64"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    trtp: PluginModule, name: str, shape: tuple[int, ...], text: str
) -> None:
    inputs = tensors((512, 28, 28), 4, HALF)
    inputs[name] = TensorDesc(shape, inputs[name].dtype)
    with pytest.raises(KernelArgumentError, match=re.escape(text)):
        built(registered(trtp), inputs)


@pytest.mark.parametrize(
    ("name", "dtype", "text"),
    [
        ("feature", DataType.INT8, "feature is DataType.INT8; it must be float32 or float16"),
        ("gate", HALF, "gate has 2 axes of DataType.HALF; it must have 2 of DataType.FLOAT"),
        ("head", FLOAT, "head has 2 axes of DataType.FLOAT; it must have 2 of DataType.HALF"),
    ],
)
def test_types_that_do_not_fit_are_named(
    trtp: PluginModule, name: str, dtype: DataType, text: str
) -> None:
    inputs = tensors((512, 28, 28), 4, HALF)
    inputs[name].dtype = dtype
    with pytest.raises(KernelArgumentError, match=re.escape(text)):
        registered(trtp).register(**inputs)


def test_kernels_that_tensorrt_cannot_launch_are_refused() -> None:
    variant = plugin_variant("plugin-fp16-nchw-n4")
    check_kernel(kernel_of(variant), variant)
    with pytest.raises(KernelError, match=r"takes 19 parameters .*; TensorRT passes 17"):
        check_kernel(kernel_of(variant, extra=2), variant)
    with pytest.raises(KernelError, match="has no entry other"):
        check_kernel(AotKernel("other", ptx_of(variant), 128, 0), variant)
    with pytest.raises(KernelError, match="built for 256 threads a block; its plan says 128"):
        check_kernel(AotKernel("kernel", ptx_of(variant), 256, 0), variant)
    with pytest.raises(KernelError, match="takes 49153 bytes of shared memory"):
        check_kernel(AotKernel("kernel", ptx_of(variant), 128, 49153), variant)
    swapped = replace(variant, signature=dict(reversed([*variant.signature.items()])))
    with pytest.raises(KernelError, match="takes 17 parameters"):
        check_kernel(AotKernel("kernel", ptx_of(swapped), 128, 0), variant)


def test_unknown_variants_are_named() -> None:
    with pytest.raises(KernelError, match="no variant plugin-bf16-nchw-n4; it has plugin-fp32-"):
        plugin_variant("plugin-bf16-nchw-n4")


BUILD = """
import sys
from importlib.metadata import version
from pathlib import Path
from sshr_deploy.runtime.kernels.building.build import source_hash
from sshr_deploy.runtime.kernels.building.compile import compile_to
from sshr_deploy.runtime.kernels.hfrm_cam.plan import plugin_variants
from sshr_deploy.runtime.kernels.manifest import KernelManifest, write_manifest
folder, *names = sys.argv[1:]
cubins = [compile_to(Path(folder), v, 80) for v in plugin_variants() if v.name in names]
sources = {"hfrm_cam": source_hash("hfrm_cam")}
write_manifest(Path(folder), KernelManifest(version("triton"), sources, tuple(cubins)))
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make kernels` would make of two variants; it refuses kernels that spill."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("cubins")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    subprocess.run(
        [sys.executable, "-c", BUILD, folder, *BUILT], env=environment, check=True, text=True
    )
    return folder


@pytest.mark.parametrize("name", BUILT)
def test_a_real_kernel_is_found_and_launchable(kernels: Path, name: str) -> None:
    variant = plugin_variant(name)
    kernel = precompiled_kernels(kernels)(variant)
    check_kernel(kernel, variant)
    assert (kernel.entry, kernel.threads) == ("hfrm_cam_kernel", variant.num_warps * 32)
    assert 0 < kernel.shared_bytes <= 49152  # what a launch may take without asking
    assert re.search(r"^\.target sm_80$", kernel.ptx, re.MULTILINE)
    assert ".py" not in kernel.ptx  # no paths of the machine that built it


def test_kernels_of_another_plan_are_refused(kernels: Path) -> None:
    find = precompiled_kernels(kernels)
    variant = plugin_variant(BUILT[0])
    other = replace(variant, constants={**variant.constants, "BLOCK_C": 64})
    with pytest.raises(KernelError, match=r"built with another constants .*`make kernels`"):
        find(other)
    with pytest.raises(KernelError, match=r"no hfrm_cam plugin-fp32-nchw-n8 kernel for SM 8\.0"):
        find(plugin_variant("plugin-fp32-nchw-n8"))


@pytest.mark.usefixtures("trtp")
def test_without_precompiled_kernels_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "FOLDER", tmp_path)
    with pytest.raises(KernelError, match=r"no precompiled kernels .*; `make kernels` builds"):
        register_plugins()


def test_every_plugin_variant_ships_as_ptx_of_sm_80() -> None:
    from sshr_deploy.runtime.kernels.building.build import SMS, variants

    shipped = {sm: [v.name for v in variants("hfrm_cam", sm) if v.as_ptx] for sm in SMS}
    names = [variant.name for variant in plugin_variants()]
    assert len(names) == 9
    assert shipped == {**{sm: [] for sm in SMS}, 80: names}


def test_a_second_call_changes_nothing(trtp: PluginModule) -> None:
    first = registered(trtp)
    register_plugins()  # would need kernels
    assert registered(trtp) is first


def test_without_tensorrt_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sshr-deploy\[tensorrt\]'"):
        register_plugins(kernel_of)
