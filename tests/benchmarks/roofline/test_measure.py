from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.subject import subject_of
from sshr_deploy.benchmarks.roofline import measure as module
from sshr_deploy.benchmarks.roofline.layers import Layer, profile_layers
from sshr_deploy.benchmarks.roofline.measure import RooflineSettings, measure_roofline
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.cli.roofline_table import print_roofline
from sshr_deploy.errors import SessionError
from sshr_deploy.manifest import Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.machine import threads
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.benchmarks.contenders.recalled import RecalledSession, classes_reversed
from tests.benchmarks.roofline.test_ceilings import CEILINGS

SETTINGS = RooflineSettings(batch=1, seconds=0.0, threads=1)


@pytest.fixture
def bundle(small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(threads, "_in_use", None)
    monkeypatch.setattr(module, "measure_ceilings", lambda precisions, count: CEILINGS)
    monkeypatch.setattr(module, "find_gpus", tuple)
    return load_bundle(small_bundle_dir)


def _recorder(bundle: Bundle, file: Path | None = None) -> Recorder:
    recorder = Recorder("roofline", subject_of(bundle), {}, file)
    recorder.busy = lambda: None  # type: ignore[method-assign]  # whatever runs beside the tests
    return recorder


def _contender(name: str, opened: Callable[[], Session]) -> Contender:
    tolerance = Tolerance(mask_agreement=0.99)
    return Contender(name, Precision.FP32, tolerance, lambda batch: opened(), "")


def _right(bundle: Bundle) -> Contender:
    graph = bundle.file(bundle.manifest.artifacts[0].file)
    classes = bundle.manifest.profile.num_classes
    return _contender("onnx-cpu fp32", lambda: OnnxRuntimeSession(graph, classes))


def _wrong(bundle: Bundle) -> Contender:
    recalled = RecalledSession(reference_of(bundle), classes_reversed)
    return _contender("openvino fp32", lambda: recalled)


def test_an_engine_beneath_its_ceiling(bundle: Bundle, tmp_path: Path) -> None:
    recorder = _recorder(bundle, tmp_path / "roofline.json")
    with recorder:
        measure_roofline(bundle, [_right(bundle)], SETTINGS, recorder)

    document = read_document(tmp_path / "roofline.json")
    assert document.complete and document.facts["ceilings"]["gflop_per_s"] == {"fp32": 100.0}
    (row,) = document.rows
    figures = row.figures
    assert row.agreement is not None and row.agreement.misses == ()
    assert figures["gflop"] == pytest.approx(bundle.manifest.model.gflop_per_patch)
    assert figures["floor_ms"] is not None and figures["median_ms"] is not None
    # No layer is faster than the machine, so that all of them are not either.
    assert figures["floor_ms"] >= (figures["gflop"] or 0) / 100 * 1e3
    if "share_of_ceiling" not in row.refused:  # a busy machine
        share = figures["floor_ms"] / figures["median_ms"]
        assert figures["share_of_ceiling"] == pytest.approx(share)


def test_a_busy_machine_tells_no_share(bundle: Bundle) -> None:
    recorder = _recorder(bundle)
    recorder.busy = lambda: "others were busy"  # type: ignore[method-assign]
    measure_roofline(bundle, [_right(bundle)], SETTINGS, recorder)
    (row,) = recorder.document.rows
    assert row.samples and row.figures["share_of_ceiling"] is None
    assert row.refused == {"share_of_ceiling": "others were busy"}


def test_an_engine_whose_masks_disagree_has_no_speed(bundle: Bundle) -> None:
    recorder = _recorder(bundle)
    measure_roofline(bundle, [_wrong(bundle)], SETTINGS, recorder)
    (row,) = recorder.document.rows
    assert row.samples == () and row.figures == {}
    assert row.not_measured is not None and row.not_measured.startswith("its masks disagree: ")


def test_or_one_without_a_share_where_the_user_allows_it(bundle: Bundle) -> None:
    recorder = _recorder(bundle)
    allowed = RooflineSettings(batch=1, seconds=0.0, threads=1, allow_unqualified=True)
    measure_roofline(bundle, [_wrong(bundle)], allowed, recorder)
    (row,) = recorder.document.rows
    assert row.samples and row.figures["share_of_ceiling"] is None
    assert row.facts["unqualified"] == row.refused["share_of_ceiling"]


def test_layers_are_sorted_by_what_they_lose_and_other_engines_go_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steady(*arguments: Any, **named: Any) -> list[Layer]:
        """Whatever runs beside the tests."""
        layers = profile_layers(*arguments, **named)
        for layer in layers:
            layer.samples_ms[:] = [layer.median_ms] * len(layer.samples_ms)
        return layers

    monkeypatch.setattr(module, "profile_layers", steady)

    def absent() -> Session:
        raise SessionError("no GPU here")

    recorder = _recorder(bundle)
    settings = RooflineSettings(batch=1, seconds=0.0, layers=True, threads=1)
    contenders = [_contender("onnx-cuda fp32", absent), _right(bundle)]
    measure_roofline(bundle, contenders, settings, recorder)

    missing, row = recorder.document.rows
    assert missing.not_measured == "no GPU here"
    layers, whole = row.facts["layers"], row.facts["kernels_ms"]
    lost = [layer["lost_ms"] for layer in layers]
    assert lost == sorted(lost, reverse=True)
    assert whole == pytest.approx(sum(layer["median_ms"] for layer in layers))
    assert row.facts["kernels_without_worst_ms"] == pytest.approx(whole - sum(lost[:10]))


@pytest.mark.parametrize("by", ["other work", "spread"])
def test_a_busy_machine_tells_nothing_of_what_layers_lose(
    by: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = _made_up("long", [9.0, 9.0, 9.0]), _made_up("lossy", [5.0, 5.0, 5.0])
    if by == "spread":
        work[0].samples_ms[:] = [9.0, 20.0, 40.0]
    monkeypatch.setattr(module, "profile_layers", lambda *_, **__: list(work))
    recorder = _recorder(bundle)
    if by == "other work":
        recorder.busy = lambda: "others were busy"  # type: ignore[method-assign]
    settings = RooflineSettings(batch=1, seconds=0.0, layers=True, threads=1)
    measure_roofline(bundle, [_right(bundle)], settings, recorder)

    facts = recorder.document.rows[0].facts
    assert [layer["layer"] for layer in facts["layers"]] == ["long", "lossy"]
    assert [layer["lost_ms"] for layer in facts["layers"]] == [None, None]
    assert facts["kernels_without_worst_ms"] is None and facts["layers"][0]["samples_ms"]
    assert "busy" in facts["layers_refused"]
    print_roofline(recorder.document)
    shown = capsys.readouterr().out
    assert "what its layers lose is not told" in shown and "time by kernel" not in shown


def _made_up(layer: str, samples_ms: list[float]) -> Layer:
    flop = 8 * 10**8 if layer == "long" else 0
    return Layer(layer, layer, "Conv", Precision.FP32, flop, 1000, samples_ms)


def test_interrupted_it_keeps_what_it_has(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "profile_layers", interrupted)
    recorder = _recorder(bundle)
    settings = RooflineSettings(batch=1, seconds=0.0, layers=True, threads=1)
    with pytest.raises(KeyboardInterrupt), recorder:
        measure_roofline(bundle, [_right(bundle)], settings, recorder)
    assert not recorder.document.complete
    assert recorder.document.row("onnx-cpu fp32").samples
