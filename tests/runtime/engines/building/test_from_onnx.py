"""Builds with the real TensorRT-RTX, which needs no GPU, and with a stand-in for TensorRT."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.errors import ExportError, OutputError, UsageError
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.building.from_onnx import (
    BuildOptions,
    BuildReport,
    build_engine,
)
from sshr_deploy.runtime.engines.kinds import TENSORRT, TENSORRT_RTX
from tests.export.tiny_graphs import CONVOLUTIONS, write_tiny_graph
from tests.runtime.engines.building import fake_tensorrt_builder as fake
from tests.runtime.engines.building.fake_tensorrt_builder import World, fake_tensorrt

STEM, BODY = CONVOLUTIONS
FP16, FP32, INT8 = Precision.FP16, Precision.FP32, Precision.INT8
NO_DRIVER = "the built engine was not inspected: it cannot be loaded here: "


class Build:
    """Builds `graph` with one library into a folder and keeps what was told on the way."""

    library = TENSORRT_RTX.library
    precision = FP16

    def __init__(self, folder: Path) -> None:
        self.graph = folder / "graph.onnx"
        self.path = folder / "engines" / "one.engine"
        self.progress: list[tuple[str, float]] = []

    def __call__(self, wider: frozenset[str] = frozenset(), **options: Any) -> BuildReport:
        assert self.library is not None
        return build_engine(
            self.graph,
            self.path,
            library=self.library,
            precision=self.precision,
            options=replace(BuildOptions(), **options),
            on_progress=self.tell,
            wider=wider,
        )

    def tell(self, text: str, share: float) -> None:
        self.progress.append((text, share))

    def refused(self, error: type[Exception], pattern: str, **arguments: Any) -> str:
        with pytest.raises(error, match=pattern) as caught:
            self(**arguments)
        folder = self.path.parent
        assert not folder.exists() or not list(folder.iterdir())
        return str(caught.value)


@pytest.fixture
def rtx(tmp_path: Path) -> Build:
    pytest.importorskip("tensorrt_rtx")
    return Build(tmp_path)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def trt(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(world))
    build = Build(tmp_path)
    build.library = TENSORRT.library
    build.graph.write_bytes(b"a graph")
    return build


@pytest.mark.parametrize("precision", Precision)
def test_rtx_builds_every_precision(rtx: Build, precision: Precision) -> None:
    write_tiny_graph(rtx.graph, precision, precision)
    rtx.precision = precision
    report = rtx()
    assert report.engine_bytes == rtx.path.stat().st_size > 1000
    assert report.layers == {str(precision): 2}
    assert report.library.startswith("tensorrt-rtx 1.")
    assert report.timing_cache == "none"
    assert report.inspected or any(note.startswith(NO_DRIVER) for note in report.notes)
    assert any("documents INT8" in note for note in report.notes) == (precision is INT8)
    assert [path.name for path in rtx.path.parent.iterdir()] == ["one.engine"]
    shares = [share for _, share in rtx.progress]
    assert shares == sorted(shares) and 0 < shares[0] < 0.5 and shares[-1] == 1
    assert "Building engine" in {text for text, _ in rtx.progress}


def test_rtx_builds_the_network(rtx: Build, small_checkpoint: Path) -> None:
    from sshr_deploy.export.graph.onnx_from_network import write_onnx
    from sshr_deploy.model.checkpoint import load_checkpoint

    write_onnx(load_checkpoint(small_checkpoint), rtx.graph)
    rtx.precision = FP32
    assert rtx(batches=(1, 8)).layers == {"fp32": 48}
    rtx.precision = FP16
    rtx.path = rtx.path.with_name("other.engine")
    with pytest.raises(ExportError, match=r"48 of 48 convolutions are not fp16: .*\(fp32\)"):
        rtx()
    (rtx.graph.parent / "graph.onnx.data").unlink()
    with pytest.raises(ExportError, match=r"graph\.onnx is not supported: .*initializer"):
        rtx()
    assert not rtx.path.exists()


def test_rtx_takes_wider_convolutions_where_they_are_named(rtx: Build) -> None:
    write_tiny_graph(rtx.graph, "fp16", "int8")
    rtx.precision = INT8
    text = rtx.refused(ExportError, "1 of 2 convolutions are not int8")
    assert f"{STEM} (fp16)" in text and BODY not in text
    assert rtx(wider=frozenset({STEM}), batches=(4,)).layers == {"fp16": 1, "int8": 1}


def test_rtx_takes_no_uint8_for_int8(rtx: Build) -> None:
    write_tiny_graph(rtx.graph, "int8", "int8", zero=np.uint8(0))
    rtx.precision = INT8
    rtx.refused(ExportError, "quantises to UINT8")
    write_tiny_graph(rtx.graph, "int8", "int8", zero=np.int8(-128))
    rtx.refused(ExportError, "zero point")


def test_rtx_lists_what_it_does_not_support(rtx: Build) -> None:
    import onnx

    model = onnx.load(write_tiny_graph(rtx.graph, "fp16", "fp16"))
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    for index, node in enumerate(relus):
        node.op_type, node.domain, node.name = "Nonsense", "nowhere", f"strange_{index}"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    onnx.save(model, rtx.graph)
    text = rtx.refused(ExportError, r"graph\.onnx is not supported: strange_0 \(Nonsense\): ")
    assert "\n" not in text and text.endswith("use `engine` onnx")


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_rtx_names_a_file_that_is_no_graph(rtx: Build, content: bytes | None) -> None:
    if content is not None:
        rtx.graph.write_bytes(content)
    rtx.refused(ExportError, "graph.*; export")


def test_rtx_needs_a_dynamic_batch(rtx: Build) -> None:
    write_tiny_graph(rtx.graph, "fp16", "fp16", batch=8)
    rtx.refused(ExportError, r"1 inputs, the first of shape \(8, 8, 8, 3\)")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_rtx_stops_when_told_so(rtx: Build, error: type[BaseException]) -> None:
    write_tiny_graph(rtx.graph, "fp16", "fp16")

    def stop(text: str, share: float) -> None:
        rtx.progress.append((text, share))
        if len(rtx.progress) == 5:
            raise error("enough")

    rtx.tell = stop  # type: ignore[method-assign]
    with pytest.raises(error, match="enough"):
        rtx()
    assert len(rtx.progress) == 5
    assert not list(rtx.path.parent.iterdir())


def test_rtx_has_no_version_compatible_engines(rtx: Build) -> None:
    write_tiny_graph(rtx.graph, "fp16", "fp16")
    rtx.refused(UsageError, "leave version compatibility off", version_compatible=True)
    assert rtx(hardware_compatible=True).layers == {"fp16": 2}  # they all are


def test_rtx_has_no_timing_cache(rtx: Build, tmp_path: Path) -> None:
    write_tiny_graph(rtx.graph, "fp16", "fp16")
    report = rtx(timing_cache=tmp_path / "times.cache")
    assert report.timing_cache == "none" and not (tmp_path / "times.cache").exists()


def test_profiles_are_the_batches_and_then_the_tail(trt: Build, world: World) -> None:
    for batches, tail in (((1, 8), 4), ((16,), 8), ((1,), 1), ((4, 2, 1), 2)):
        trt(batches=batches)
        expected = [(batch, batch, batch) for batch in batches] + [(1, tail, max(batches))]
        assert [profile.shapes for profile in world.config.profiles] == [
            {"patches": tuple((size, 224, 224, 3) for size in sizes)} for sizes in expected
        ]


def test_nothing_is_asked_of_the_builder_by_default(trt: Build, world: World) -> None:
    report = trt()
    config = world.config
    assert report.inspected and report.notes == () and report.layers == {"fp16": 2}
    assert report.library == "tensorrt 10.16.1.11" and report.timing_cache == "none"
    assert config.flags == set()  # TF32, which is on in the library, is off
    assert config.pools == {} and config.cache is None
    assert config.hardware_compatibility_level is fake.HardwareCompatibilityLevel.NONE
    assert trt.path.stat().st_size == report.engine_bytes


def test_options_reach_the_builder(trt: Build, world: World) -> None:
    report = trt(workspace_mib=512, version_compatible=True, hardware_compatible=True)
    config = world.config
    assert config.pools == {fake.MemoryPoolType.WORKSPACE: 512 * 2**20}
    assert config.flags == {fake.BuilderFlag.VERSION_COMPATIBLE}
    assert config.hardware_compatibility_level is fake.HardwareCompatibilityLevel.AMPERE_PLUS
    assert report.inspected  # such an engine brings code that must be allowed to run


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"batches": ()}, "batch sizes"),
        ({"batches": (1, 0)}, "batch sizes"),
        ({"workspace_mib": 0}, "workspace"),
    ],
)
def test_wrong_options_are_named(trt: Build, options: dict[str, Any], pattern: str) -> None:
    trt.refused(UsageError, pattern, **options)


def test_the_timing_cache_is_kept_and_used(trt: Build, tmp_path: Path) -> None:
    cache = tmp_path / "caches" / "times.cache"
    sizes = []
    for state in ("new", "reused", "reused"):
        report = trt(timing_cache=cache)
        assert report.timing_cache == state and report.notes == ()
        sizes.append(cache.stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]  # each build adds to what the last one left
    assert [path.name for path in cache.parent.iterdir()] == ["times.cache"]


@pytest.mark.parametrize("content", [b"half a fi", b"cache of another library:++"])
@pytest.mark.parametrize("unreadable", [False, True])
def test_a_timing_cache_that_does_not_fit_is_replaced(
    trt: Build, world: World, tmp_path: Path, content: bytes, unreadable: bool
) -> None:
    world.unreadable_cache = unreadable
    cache = tmp_path / "times.cache"
    cache.write_bytes(content)
    report = trt(timing_cache=cache)
    assert report.timing_cache == "replaced" and report.inspected
    assert report.notes == (
        f"{cache} was no timing cache of this library and GPU; it was replaced",
    )
    assert cache.read_bytes() == fake.CACHE_HEADER + b"+"


@pytest.mark.parametrize("place", [".", "graph.onnx/times.cache"])
def test_a_timing_cache_that_cannot_be_written_is_told_first(
    trt: Build, tmp_path: Path, place: str
) -> None:
    trt.refused(OutputError, "cannot write", timing_cache=tmp_path / place)
    assert trt.progress == []


def test_an_engine_of_another_precision_is_not_written(trt: Build, world: World) -> None:
    world.layers = [
        {"Name": "first", "LayerType": "CaskConvolution", "Weights": {"Type": "Half"}},
        {"Name": "second", "LayerType": "CaskConvolution", "Weights": {"Type": "Float"}},
    ]
    text = trt.refused(ExportError, "not built in the precision of its graph")
    assert "second is fp32 (CaskConvolution), not fp16" in text and "first" not in text


def test_an_engine_that_does_not_tell_is_written_and_noted(trt: Build, world: World) -> None:
    world.layers = [{"Name": "first", "LayerType": "CaskConvolution", "Weights": {"Type": "Half"}}]
    report = trt()
    assert not report.inspected
    assert report.notes == (
        "the built engine was not inspected: its layers do not tell the type of second",
    )


def test_a_failed_build_leaves_the_old_engine(trt: Build, world: World) -> None:
    trt()
    before = trt.path.read_bytes()
    world.build_error = "no kernel for first\nmore"
    with pytest.raises(ExportError, match=r"cannot build .*graph\.onnx: no kernel for first; use"):
        trt(batches=(2,))
    assert trt.path.read_bytes() == before
    assert [path.name for path in trt.path.parent.iterdir()] == ["one.engine"]


def test_no_driver_is_said_so(trt: Build, world: World) -> None:
    world.has_driver = False
    trt.refused(ExportError, "tensorrt cannot build here: no driver; run sshr-deploy doctor")


def test_progress_is_of_the_whole_build(trt: Build) -> None:
    trt()
    assert trt.progress[:5] == [
        ("Part 0", 0.125),
        ("Part 0", 0.25),
        ("Part 0", 0.375),
        ("Part 0", 0.5),
        ("Building engine", 0.5),
    ]
    assert trt.progress[-1] == ("Engine built", 1.0)
