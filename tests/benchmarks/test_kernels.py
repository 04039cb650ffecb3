"""The kernels' benchmarks at sizes that the interpreter can do: what they report and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sshr_deploy.benchmarks import kernels
from sshr_deploy.benchmarks.gpu import kernel_configs, mask_kernel, network, training_kernels
from sshr_deploy.benchmarks.kernel_document import record_kernels, row_of
from sshr_deploy.benchmarks.measuring import gpu_timing
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.cli import app
from sshr_deploy.cli.kernels_table import print_kernels
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import field_geometry
from sshr_deploy.runtime.kernels.hfrm_cam.op import hfrm_cam as right
from sshr_deploy.runtime.kernels.hfrm_cam.op import run
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config, choose_config, padded_classes
from tests.kernels_anywhere import DEVICE

pytest.importorskip("triton")
DEVICE_ = torch.device(DEVICE)
FORMS = ("plain", "separable", "fused_nchw", "fused_nhwc")
SHAPE = (16, 6, 5)


def _quiet(text: str) -> None:
    del text


def measure(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "device": DEVICE_,
        "shapes": (SHAPE,),
        "batches": (2,),
        "dtypes": ("fp16",),
        "forms": FORMS,
        "seconds": 0.001,
        "on_step": _quiet,
    }
    return kernels.measure_kernels(**(settings | changes))


def test_figures_follow_from_the_raw_samples() -> None:
    report = measure()
    assert [row["form"] for row in report["rows"]] == list(FORMS)
    ceilings = report["ceilings"]["fp16"]
    batch, channels, pixels, classes = 2, 16, 30, 4
    flop = 2 * batch * pixels * channels * classes * (225 + 1)
    read = 2 * batch * channels * pixels + 4 * batch * channels + 2 * channels * classes * 226
    read += 4 * batch * classes * pixels
    floor_s = max(
        read / ceilings["copy_gb_per_s"] / 1e9, flop / ceilings["product_tflop_per_s"] / 1e12
    )
    for row in report["rows"]:
        median_ms = row["median_ms"]
        assert median_ms == pytest.approx(np.median(row["samples_ms"]), rel=1e-3, abs=1e-5)
        assert row["tflop_per_s"] == pytest.approx(flop / median_ms / 1e9)
        assert row["gb_per_s"] == pytest.approx(read / median_ms / 1e6)
        assert row["floor_ms"] == pytest.approx(floor_s * 1e3)
        assert row["share_of_floor"] == pytest.approx(floor_s * 1e3 / median_ms)
        assert 0 < row["relative_rms_error"] < kernels.BOUND["fp16"]
    json.dumps(report)


def test_no_speed_of_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong_in_the_last_image(*arguments: Any) -> Tensor:
        cam = right(*arguments)
        cam[-1] *= 1.05
        return cam

    monkeypatch.setattr(kernels, "hfrm_cam", wrong_in_the_last_image)
    rows = {row["form"]: row for row in measure()["rows"]}
    for form in ("fused_nchw", "fused_nhwc"):
        assert f"{form} on a map of [6, 5] is off by" in rows[form]["failed"]
        assert "median_ms" not in rows[form]
    assert rows["plain"]["median_ms"] > 0


def test_what_does_not_fit_the_time_is_listed() -> None:
    report = measure(batches=(1, 2), deadline_s=0.0)
    assert report["rows"] == []
    assert report["not_measured"] == ["fp16 1 x 16 x 6 x 5", "fp16 2 x 16 x 6 x 5"]


@pytest.fixture
def small_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 pixels, for a network that nothing compiles, which would take a minute."""
    monkeypatch.setattr(network, "_PATCH_PX", 32)
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)


NETWORK: dict[str, Any] = {
    "device": DEVICE_,
    "width": 1,
    "batches": (1,),
    "forms": ("authors", "plain", "depthwise", "separable", "compiled", "fused"),
    "seconds": 0.001,
    "on_step": _quiet,
}


@pytest.mark.usefixtures("small_patches")
def test_network_rows() -> None:
    streamed: list[dict[str, Any]] = []
    rows = network.measure_inference(**NETWORK, on_row=streamed.append)
    assert streamed == rows
    assert [row["form"] for row in rows] == list(NETWORK["forms"])
    for row in rows:
        assert row["patches_per_s"] == pytest.approx(1e3 / row["median_ms"])
    for row in rows[1:]:
        assert 0 <= row["relative_rms_error"] < (1e-4 if DEVICE == "cpu" else 6e-2)


def test_a_field_counts_as_the_patches_that_cover_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    settings = NETWORK | {"forms": ("separable", "compiled"), "geometry": field_geometry(448)}
    rows = network.measure_inference(**settings)
    assert [(row["form"], row["side_px"]) for row in rows] == [
        ("separable", 448),
        ("compiled", 448),
    ]
    for row in rows:
        assert row["patches_per_s"] == pytest.approx((448 / 224) ** 2 * 1e3 / row["median_ms"])
        assert 0 <= row["relative_rms_error"] < (1e-4 if DEVICE == "cpu" else 6e-2)


def test_rates_of_the_full_width() -> None:
    ceilings = gpu_timing.Ceilings(copy_gb_per_s=4300.0, product_tflop_per_s=800.0)
    figures = network._figures([16.0] * 10, 32, 64, ceilings)
    assert figures["patches_per_s"] == pytest.approx(2000)
    assert figures["tflop_per_s"] == pytest.approx(2000 * 0.2005)
    assert figures["share_of_product"] == pytest.approx(2000 * 0.2005 / 800)


@pytest.mark.usefixtures("small_patches")
def test_no_speed_of_a_wrong_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: object, feature: Tensor, gate: Tensor) -> Tensor:
        del self, gate
        return feature.new_ones(len(feature), 4, *feature.shape[2:], dtype=torch.float32)

    def broken(self: object, *arguments: object) -> Tensor:
        raise MemoryError("out of memory\nmore lines")

    monkeypatch.setattr("sshr_deploy.export.graph.fused_head.FusedHead.forward", wrong)
    monkeypatch.setattr("sshr_deploy.model.HFRM.cam_depthwise", broken)
    rows = {row["form"]: row for row in network.measure_inference(**NETWORK)}
    assert rows["fused"]["failed"].startswith("network, fused: CAMs differ from plain by")
    assert rows["depthwise"]["failed"] == "out of memory"
    for form in ("fused", "depthwise"):
        assert "median_ms" not in rows[form]
    for form in ("plain", "separable", "compiled"):
        assert rows[form]["median_ms"] > 0


@pytest.mark.usefixtures("small_patches")
def test_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"device": DEVICE_, "width": 1, "batch": 2, "seconds": 0.001}
    rows = training_kernels.measure_training_kernels(**settings, on_step=_quiet)
    parts = [(row["part"], row["form"]) for row in rows]
    forms = ("plain", "pooled", "fused")
    assert parts == [(part, form) for part in ("HFRM and heads", "step") for form in forms]
    fused = training_kernels.FORMS["fused"]
    wrong = {**training_kernels.FORMS, "fused": lambda model, f: 1.01 * fused(model, f)}
    monkeypatch.setattr(training_kernels, "FORMS", wrong)
    with pytest.raises(SshrDeployError, match="training, fused: logits differ from plain"):
        training_kernels.measure_training_kernels(**settings, on_step=_quiet)


def test_mask_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_kernel, "_CAM_PX", 4)
    monkeypatch.setattr(mask_kernel, "_CALLS", 2)
    settings: dict[str, Any] = {"device": DEVICE_, "batches": (2,), "size_px": 16, "seconds": 0.001}
    rows = mask_kernel.measure_mask_kernel(**settings, on_step=_quiet)
    assert [(row["form"], row["batch"]) for row in rows] == [("kernel", 2), ("pytorch", 2)]
    monkeypatch.setattr(mask_kernel, "_kernel", lambda cams, prob, size: torch.full((2, 16, 16), 9))
    wrong, right = mask_kernel.measure_mask_kernel(**settings, on_step=_quiet)
    assert wrong["failed"].endswith("agrees on 0.00% only; no speed is reported")
    assert "median_ms" not in wrong
    assert right["median_ms"] > 0


def test_config_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = (Config(1, 32, 16, 4, 1), Config(2, 64, 16, 4, 1))
    settings: dict[str, Any] = {
        "device": DEVICE_,
        "shape": SHAPE,
        "batches": (1,),
        "seconds": 0.001,
    }
    rows = kernel_configs.measure_configs(**settings, configs=configs, on_step=_quiet)
    assert [row["config"]["block_p"] for row in rows] == [32, 64]
    for row in rows:
        assert row["share_of_floor"] == pytest.approx(row["floor_ms"] / row["median_ms"])
    monkeypatch.setattr(kernel_configs, "run", lambda *arguments: 1.01 * run(*arguments))
    for row in kernel_configs.measure_configs(**settings, configs=configs, on_step=_quiet):
        assert row["failed"].endswith("no speed is reported")
        assert "median_ms" not in row


LIMITS = {89: 99, 90: 227, 100: 227, 120: 99}
"""Shared memory of a block in KiB, CUDA Programming Guide, "Compute Capabilities"."""
MEASURED = {
    (2, 128, 64, 8, 3, 16): 98304,
    (2, 128, 64, 8, 3, 64): 104448,
    (2, 128, 32, 8, 4, 64): 155648,
    (2, 256, 64, 16, 3, 64): 202752,
    (4, 128, 64, 8, 3, 16): 147456,
    (2, 64, 64, 4, 4, 64): 98304,
}
"""Bytes that Triton 3.6 gives builds for SM 9.0."""


def shared_bytes(config: Config, classes: int = 4) -> int:
    """Most dynamic shared memory that a build for 16-bit features takes, in bytes, to within 1 KiB.

    The two loops share it. Triton keeps `num_stages` tiles of the main loop at most, and one fewer
    of the gated head's, whose gate is FP32; on SM 10.0 barriers take 16 bytes more.
    """
    taps = config.block_c * (config.block_p + config.columns(classes)) * 2
    head = config.block_g * max(16, config.rows * padded_classes(classes)) * 2
    gated = config.block_p * config.block_g * (2 + 4)
    return max(config.num_stages * taps, (config.num_stages - 1) * (gated + head) + head)


@pytest.mark.parametrize("sm", kernel_configs.CONFIGS)
def test_candidates_fit_the_shared_memory(sm: int) -> None:
    configs = kernel_configs.candidates(sm)
    assert len(set(configs)) == len(configs) > 1
    for config in configs:
        assert shared_bytes(config) <= (LIMITS[sm] - 1) << 10


@pytest.mark.parametrize(("sizes", "expected"), MEASURED.items())
def test_shared_memory_is_what_the_compiler_takes(sizes: tuple[int, ...], expected: int) -> None:
    assert shared_bytes(Config(*sizes)) == expected


def test_an_sm_without_candidates_times_the_plan() -> None:
    assert kernel_configs.candidates(75) == (choose_config(75, "fp16", 4),)


def test_a_config_without_room_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> Tensor:
        raise MemoryError("out of resource: shared memory")

    monkeypatch.setattr(kernel_configs, "run", full)
    rows = kernel_configs.measure_configs(
        device=DEVICE_,
        shape=SHAPE,
        batches=(1,),
        configs=(Config(1, 32, 16, 4, 1),),
        on_step=_quiet,
    )
    assert rows[0]["left_out"] == "MemoryError: out of resource: shared memory"


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_the_command_needs_a_gpu(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["benchmark", "kernels", "--json", str(tmp_path / "a.json")])
    assert done.exit_code != 0
    assert "PyTorch finds no NVIDIA GPU here" in str(done.exception)


def test_what_failed_is_shown_and_ceilings_outlive_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> list[dict[str, Any]]:
        raise KeyboardInterrupt

    recorder = Recorder("kernels", None, {})
    ceilings = gpu_timing.Ceilings(copy_gb_per_s=4300.0, product_tflop_per_s=800.0)
    monkeypatch.setattr(kernels, "measure_ceilings", lambda *_: ceilings)
    monkeypatch.setattr(kernels, "_measure_size", interrupted)
    with pytest.raises(KeyboardInterrupt), recorder:
        record_kernels(recorder, device=DEVICE_, dtypes=("fp16",), on_step=_quiet)
    assert recorder.document.facts["ceilings"]["fp16"]["copy_gb_per_s"] == 4300
    assert recorder.document.facts["bounds"] == kernels.BOUND
    failed = {"dtype": "fp16", "batch": 2, "shape": [1, 2, 3], "form": "plain", "failed": "off"}
    recorder.row(row_of(failed))
    recorder.fact("not_measured", ["bf16 1 x 2 x 3 x 4"])
    print_kernels(recorder.document)
    shown = capsys.readouterr().out
    assert "not measured: fp16, 2 x 1 x 2 x 3, plain: off" in shown
    assert "not measured: bf16 1 x 2 x 3 x 4: out of time" in shown


def test_rows_of_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("kernels", None, {})
    settings: dict[str, Any] = {"device": DEVICE_, "shapes": (SHAPE,), "batches": (2,)}
    with recorder:
        record_kernels(
            recorder, **settings, forms=FORMS, dtypes=("fp16",), seconds=0.001, on_step=_quiet
        )
    document = recorder.document
    assert [row.name for row in document.rows] == [f"fp16, 2 x 16 x 6 x 5, {f}" for f in FORMS]
    for row in document.rows:
        assert row.figures["median_ms"] == pytest.approx(np.median(row.samples), rel=1e-3, abs=1e-5)
        assert row.facts["form"] in FORMS
    print_kernels(document)
    shown = capsys.readouterr().out
    assert "fused_nhwc" in shown and "floor / time" in shown and "cpu: copies" in shown
    failed = {"dtype": "fp16", "batch": 2, "shape": [1, 2, 3], "form": "plain", "failed": "off"}
    assert row_of(failed).not_measured == "off" and not row_of(failed).samples
