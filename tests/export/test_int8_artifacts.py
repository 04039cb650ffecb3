"""From `--precision int8` to a bundle whose 8-bit graphs are proven; a width-2 network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.export import int8_artifacts
from sshr_deploy.export.artifacts import ExportOptions, Workshop, int8_tolerances
from sshr_deploy.export.bundle_from_checkpoint import export_bundle
from sshr_deploy.export.int8_search import Judge
from sshr_deploy.export.int8_table import Int8RejectedError, Verdict
from sshr_deploy.export.reference_from_checkpoint import PatchSet, shipped_patches
from sshr_deploy.manifest import Artifact
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.sessions import OpenOptions, open_session

LOOSE = int8_tolerances(miou_drop=1, mask_agreement=0.5)


@pytest.fixture
def patches() -> PatchSet:
    shipped = shipped_patches()
    return PatchSet(shipped.images[:2], shipped.source)


def _times(monkeypatch: pytest.MonkeyPatch, fp32_ms: float) -> None:
    """Times are not measured in tests: every 8-bit graph takes 10 ms."""

    def time_graphs(graphs: Sequence[Path], classes: int) -> list[float]:
        assert all(graph.is_file() for graph in graphs) and classes == 3
        return [fp32_ms, *(10.0 for _ in graphs[1:])]

    monkeypatch.setattr(int8_artifacts, "time_graphs", time_graphs)


def _int8(bundle: Bundle) -> dict[str, Artifact]:
    """The INT8 artefacts by their first engine."""
    return {a.engines[0]: a for a in bundle.manifest.artifacts if a.precision == "int8"}


def _quantised_convolutions(path: Path) -> set[str]:
    graph = onnx.load(path, load_external_data=False).graph
    dequantised = {o for n in graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    return {n.name for n in graph.node if n.op_type == "Conv" and n.input[1] in dequantised}


def test_a_bundle_gets_a_graph_for_each_family(
    small_checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _times(monkeypatch, fp32_ms=20)
    said: list[str] = []
    options = ExportOptions((Precision.INT8,), ("tensorrt-rtx",), tolerances=LOOSE)
    out = tmp_path / "bundle"
    bundle = export_bundle(small_checkpoint, profile, out, patches, options, on_step=said.append)
    found = _int8(bundle)
    assert found["onnx-cpu"].engines == ("onnx-cpu",)
    assert found["tensorrt-rtx"].engines == ("tensorrt-rtx", "onnx-rtx")
    for engine, kind in (("onnx-cpu", "u8s8"), ("tensorrt-rtx", "s8s8")):
        artifact = found[engine]
        assert artifact.quantisation is not None and artifact.qualification is not None
        assert artifact.quantisation.kind == kind
        assert artifact.qualification.mask_agreement >= 0.5
        narrow = _quantised_convolutions(bundle.file(artifact.file))
        assert len(narrow) == len(artifact.quantisation.quantised) > 0
        assert narrow.isdisjoint(artifact.quantisation.wide_nodes)
        assert len(narrow) + len(artifact.quantisation.wide_nodes) == 48
    assert any("20.0" in text and "10.0" in text for text in said), "the timed rows are shown"
    assert not out.with_name("bundle.int8-search").exists()

    with open_session(bundle, "onnx-cpu") as session:
        assert session.info.precision == "int8", "it is the fastest that is proven"
        assert session.info.mask_agreement == found["onnx-cpu"].qualification.mask_agreement  # type: ignore[union-attr]
    with open_session(bundle, "onnx-cpu", OpenOptions(Precision.FP32)) as session:
        assert session.info.precision == "fp32"


def test_a_slower_graph_is_rejected_with_its_table_and_the_search_goes_on_later(
    small_checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, options = tmp_path / "bundle", ExportOptions((Precision.INT8,), tolerances=LOOSE)
    _times(monkeypatch, fp32_ms=5)
    with pytest.raises(Int8RejectedError, match=r"not faster here: 10\.0 ms .*5\.0 ms") as caught:
        export_bundle(small_checkpoint, profile, out, patches, options)
    assert "agreement" in caught.value.table and "10.0" in caught.value.table
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.int8-search"]

    def judge(shop: Workshop) -> Judge:
        def forbidden(graph: Path) -> Verdict:
            raise AssertionError("it was judged before")

        return forbidden

    monkeypatch.setattr(int8_artifacts, "judge_of", judge)
    _times(monkeypatch, fp32_ms=20)
    export_bundle(small_checkpoint, profile, out, patches, options)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert set(_int8(load_bundle(out))) == {"onnx-cpu"}


def test_a_budget_that_nothing_meets_is_told_with_the_table(
    small_checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _times(monkeypatch, fp32_ms=20)
    exact = int8_tolerances(miou_drop=0, mask_agreement=1)
    options = ExportOptions((Precision.INT8,), tolerances=exact)
    with pytest.raises(Int8RejectedError, match="no layer can be quantised within") as caught:
        export_bundle(small_checkpoint, profile, tmp_path / "bundle", patches, options)
    assert "only conv1a" in caught.value.table
    assert not (tmp_path / "bundle").exists()
