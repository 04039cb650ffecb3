"""A mix that was found for patches, on the graphs for fields."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from sshr_deploy.export import artifacts
from sshr_deploy.export.field_reference import field_reference
from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.activation_ranges import RangeMethod, histograms, layer_ranges
from sshr_deploy.export.int8.artifacts import ChosenMix, write_mix
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme
from sshr_deploy.export.int8.search import Int8Mix, Setting
from sshr_deploy.export.int8.verdicts import Verdict
from sshr_deploy.export.job import ExportJob, ExportOptions, UnequalGraphError, int8_tolerances
from sshr_deploy.export.reference import PatchSet, reference_from, shipped_patches
from sshr_deploy.geometry import field_geometry
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CAM_NAMES
from sshr_deploy.runtime.engines.building.from_onnx import BuildOptions, build_engine
from sshr_deploy.runtime.engines.kinds import TENSORRT_RTX
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from tests.conftest import FIELD_PX

KEPT = ("conv1a", "b7.conv_branch2b2")


@pytest.fixture(scope="module")
def jobs(
    small_checkpoint: Path,
    small_bundle_dir: Path,
    profile: Profile,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ExportJob, ExportJob]:
    """For patches, and for fields, with the FP32 graphs of the small bundle."""
    folder, scratch = (tmp_path_factory.mktemp(name) for name in ("folder", "scratch"))
    for name in ("model.onnx", "model.onnx.data", "field.onnx", "field-gpu.onnx"):
        shutil.copy(small_bundle_dir / name, folder)
    shipped = shipped_patches()
    patches = PatchSet(shipped.images[:2], shipped.source)
    model = load_checkpoint(small_checkpoint)
    loose = int8_tolerances(miou_drop=1, mask_agreement=0.5)
    options = ExportOptions((Precision.INT8,), form=HfrmForm.DEPTHWISE, tolerances=loose)
    job = ExportJob(
        model, profile, reference_from(model, patches), folder, scratch, scratch / "state", options,
        lambda _: None,
    )  # fmt: skip
    of_fields = field_reference(model, patches, field_geometry(FIELD_PX))
    return job, replace(job, reference=of_fields)


def _chosen(job: ExportJob, kind: QdqKind) -> ChosenMix:
    """All layers but `KEPT` in 8 bits, as a search might find it."""
    scheme = QdqScheme(kind)
    layers = conv_layers(onnx.load(job.graph(), load_external_data=False).graph)
    tensors = [tensor for layer in layers for tensor in (layer.input, layer.output)]
    found = histograms(job.graph(), tensors, job.reference.patches)
    ranges = layer_ranges(
        found, layers, RangeMethod.MIN_MAX, levels=scheme.levels, symmetric=scheme.symmetric
    )
    names = tuple(layer.name for layer in layers if layer.name not in KEPT)
    setting = Setting(scheme, RangeMethod.MIN_MAX, ranges)
    mix = Int8Mix(job.graph(), setting, names, KEPT, Verdict(1, None, 0), ())
    if kind is QdqKind.U8S8:
        return ChosenMix(mix, "two patches", "-int8", ("onnx-cpu",))
    fp16 = job.scratch / "model-typed.onnx"
    write_typed_graph(job.graph(), fp16, Precision.FP16)
    mix = replace(mix, graph=fp16)
    return ChosenMix(mix, "two patches", "-int8-tensorrt", ("tensorrt-rtx",))


def _quantised(path: Path) -> dict[str, bytes]:
    """8-bit weights by name."""
    tensors = onnx.load(path).graph.initializer
    return {
        t.name: t.raw_data for t in tensors if re.search(r"weight(_narrow)?_quantised$", t.name)
    }


@pytest.mark.parametrize("kind", list(QdqKind))
def test_the_graph_for_fields_has_the_layers_and_weights_of_that_for_patches(
    jobs: tuple[ExportJob, ExportJob], kind: QdqKind, tmp_path: Path
) -> None:
    patches, fields = jobs
    chosen = _chosen(patches, kind)
    made = [write_mix(patches, chosen), write_mix(fields, chosen, patches)]
    for artifact in made:
        quantisation = artifact.quantisation
        assert quantisation is not None
        assert (quantisation.quantised, quantisation.kept) == (chosen.mix.quantised, KEPT)
        assert len(quantisation.wide_nodes) == 4, "two kept, and two of HFRM"
    weights = [_quantised(patches.folder / artifact.file) for artifact in made]
    assert weights[0] == weights[1] and len(weights[0]) == 44
    data = f"{made[0].file}.data"
    assert made[1].weights == (data,)
    own = patches.folder / f"{made[1].file}.data"
    assert not own.exists() or own.stat().st_size < (patches.folder / data).stat().st_size / 20
    found = made[1].qualification
    assert found is not None and found.patches == 2 and found.mask_agreement > 0.9
    assert max(found.cam_relative_error[name] for name in CAM_NAMES) < 0.2

    if kind is QdqKind.U8S8:
        geometry = fields.reference.geometry
        with OnnxRuntimeSession(patches.folder / made[1].file, 3, geometry=geometry) as session:
            assert session.any_side
            assert session.infer(np.zeros((1, 448, 560, 3), np.uint8)).prob.shape == (1, 3, 42, 56)
    else:
        pytest.importorskip("tensorrt_rtx")
        assert TENSORRT_RTX.library is not None and made[1].quantisation is not None
        report = build_engine(
            patches.folder / made[1].file,
            tmp_path / "engine",
            library=TENSORRT_RTX.library,
            precision=Precision.INT8,
            options=BuildOptions(batches=(1,)),
            on_progress=lambda *_: None,
            wider=frozenset(made[1].quantisation.wide_nodes),
        )
        assert report.layers == {"int8": 44, "fp16": 4}


def test_a_graph_for_fields_that_misses_its_tolerance_is_left_out(
    jobs: tuple[ExportJob, ExportJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the bundle is made; what is wrong with another precision stops the export."""
    said: list[str] = []
    patches, fields = jobs
    tight = int8_tolerances(mask_agreement=1)
    fields = replace(fields, options=replace(fields.options, tolerances=tight))
    fields = replace(fields, on_step=said.append)
    monkeypatch.setattr(artifacts, "_fp32", lambda *_: [])
    chosen = _chosen(patches, QdqKind.U8S8)
    write_mix(patches, chosen)
    assert artifacts.make_field_artifacts(fields, patches, [chosen]) == []
    assert said[-1].startswith("no INT8 for fields with onnx-cpu: masks agree on ")
    assert list(patches.folder.glob("field-int8.onnx*")) == []
    with pytest.raises(UnequalGraphError, match="INT8 graph does not equal the checkpoint"):
        write_mix(fields, chosen, patches)
