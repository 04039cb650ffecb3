"""From `--precision int8` to a bundle whose 8-bit graphs are proven; a width-2 network."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.int8 import artifacts as int8_artifacts
from sshr_deploy.export.int8.search import Int8Mix, Judge, SearchProgress, SearchTask
from sshr_deploy.export.int8.search_state import check_state, clear_state
from sshr_deploy.export.int8.verdicts import Int8RejectedError, Verdict
from sshr_deploy.export.job import ExportJob, ExportOptions, int8_tolerances
from sshr_deploy.export.reference import PatchSet, reference_from, shipped_patches
from sshr_deploy.manifest import Artifact
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.machine.spread import Spread, spread_of
from sshr_deploy.runtime.settings import OpenOptions

pytestmark = pytest.mark.usefixtures("exported_before")
LOOSE = int8_tolerances(miou_drop=1, mask_agreement=0.5)


@pytest.fixture
def patches() -> PatchSet:
    shipped = shipped_patches()
    return PatchSet(shipped.images[:2], shipped.source)


@pytest.fixture
def job(
    small_checkpoint: Path,
    small_bundle_dir: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
) -> ExportJob:
    """With the FP32 graph, as `make_artifacts` leaves it to INT8."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(small_bundle_dir / name, folder)
    model = load_checkpoint(small_checkpoint)
    options = ExportOptions(tolerances=LOOSE)
    reference = reference_from(model, patches)
    scratch, state = tmp_path / "scratch", tmp_path / "state"
    scratch.mkdir()
    return ExportJob(model, profile, reference, folder, scratch, state, options, lambda _: None)


def _times(monkeypatch: pytest.MonkeyPatch, fp32_ms: float) -> None:
    """Times are not measured in tests: every 8-bit graph takes 10 ms."""

    def time_graphs(graphs: Sequence[Path], classes: int) -> list[Spread]:
        assert all(graph.is_file() for graph in graphs) and classes == 3
        return [spread_of([ms]) for ms in (fp32_ms, *(10.0 for _ in graphs[1:]))]

    monkeypatch.setattr(int8_artifacts, "time_graphs", time_graphs)


def _int8(bundle: Bundle) -> dict[str, Artifact]:
    """The INT8 artefacts by their first engine."""
    return {a.engines[0]: a for a in bundle.manifest.artifacts if a.precision == "int8"}


def _quantised_convolutions(path: Path) -> set[str]:
    graph = onnx.load(path, load_external_data=False).graph
    dequantised = {o for n in graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    return {n.name for n in graph.node if n.op_type == "Conv" and n.input[1] in dequantised}


def _watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verdict]:
    """What the search is told of the graphs that it asks about, by their content."""
    verdicts: dict[str, Verdict] = {}
    judge_of = int8_artifacts.judge_of

    def watched(job: ExportJob) -> Judge:
        def judge(graph: Path) -> Verdict:
            verdicts[_content(graph)] = verdict = judge_of(job)(graph)
            return verdict

        return judge

    monkeypatch.setattr(int8_artifacts, "judge_of", watched)
    return verdicts


def _content(path: Path) -> str:
    """Of a graph and its weights, whatever their file is called."""
    return hashlib.sha256(onnx.load(path).SerializeToString(deterministic=True)).hexdigest()


def test_a_bundle_gets_a_graph_for_each_family_as_it_was_judged(
    small_checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _times(monkeypatch, fp32_ms=20)
    verdicts = _watched(monkeypatch)
    monkeypatch.setattr(int8_artifacts, "Sparse", lambda on_step: on_step)
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
        verdict = verdicts[_content(bundle.file(artifact.file))]
        assert verdict.agreement == artifact.qualification.mask_agreement
        narrow = _quantised_convolutions(bundle.file(artifact.file))
        assert len(narrow) == len(artifact.quantisation.quantised) > 0
        assert narrow.isdisjoint(artifact.quantisation.wide_nodes)
        assert len(narrow) + len(artifact.quantisation.wide_nodes) == 48
    assert any("20.0" in text and "10.0" in text for text in said), "the timed rows are shown"
    steps = [re.match(r"(\d+)/(\d+) steps: (u8s8|s8s8), ", text) for text in said]
    done, totals, kinds = zip(*(step.groups() for step in steps if step), strict=True)
    assert list(map(int, done)) == sorted(map(int, done)), "one count for both searches"
    assert list(map(int, totals)) == sorted(map(int, totals), reverse=True)
    assert set(kinds) == {"u8s8", "s8s8"}
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

    def judge(job: ExportJob) -> Judge:
        def forbidden(graph: Path) -> Verdict:
            raise AssertionError("it was judged before")

        return forbidden

    monkeypatch.setattr(int8_artifacts, "judge_of", judge)
    _times(monkeypatch, fp32_ms=20)
    export_bundle(small_checkpoint, profile, out, patches, options)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert set(_int8(load_bundle(out))) == {"onnx-cpu"}


def test_the_choice_is_told_and_recorded(job: ExportJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least set is known: the judge minds conv1a and nothing else."""
    _times(monkeypatch, fp32_ms=20)

    def judge(graph: Path) -> Verdict:
        tensors = onnx.load(graph).graph.initializer
        narrow = {t.name for t in tensors if t.data_type == onnx.TensorProto.INT8}
        return Verdict(0.4 if "model.conv1a.weight_quantised" in narrow else 0.9, 0.25, 0)

    monkeypatch.setattr(int8_artifacts, "judge_of", lambda _: judge)
    said: list[str] = []
    job = replace(job, on_step=said.append)
    (chosen,) = int8_artifacts.choose_mixes(job)
    made = int8_artifacts.write_mix(job, chosen)
    assert made.quantisation is not None
    assert made.quantisation.kept == ("conv1a",)
    assert made.quantisation.calibration == (
        "2 patches of CMU-1-Small-Region crops (CC0), the patches it is judged on"
    )
    (choice,) = (text for text in said if text.startswith("chosen"))
    assert choice == (
        "chosen: u8s8, 8-bit weights, ranges by min-max; 45 of 46 convolutions in 8 bits, conv1a "
        "in FP32; masks agree on 90.00% of pixels, mean IoU changes by -0.2500"
    )


def test_verdicts_of_another_release_do_not_count(
    job: ExportJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def search(task: SearchTask, on_progress: SearchProgress) -> Int8Mix:
        names.append(task.judge_name)
        raise Int8RejectedError("seen", [])

    monkeypatch.setattr(int8_artifacts, "search_int8", search)
    for version in ("1.0.0", "1.0.0", "1.0.1"):
        monkeypatch.setattr(int8_artifacts, "__version__", version)
        with pytest.raises(Int8RejectedError, match="seen"):
            int8_artifacts.choose_mixes(job)
    assert names[0] == names[1] != names[2]


def test_tensorrt_gets_its_graph_where_processors_gain_nothing(
    small_checkpoint: Path,
    profile: Profile,
    patches: PatchSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _times(monkeypatch, fp32_ms=5)
    said: list[str] = []
    options = ExportOptions((Precision.INT8,), ("tensorrt",), tolerances=LOOSE)
    out = tmp_path / "bundle"
    bundle = export_bundle(small_checkpoint, profile, out, patches, options, on_step=said.append)
    assert set(_int8(bundle)) == {"tensorrt"}
    assert any(text.startswith("no INT8 for onnx-cpu: 8 bits are not faster") for text in said)
    with open_session(bundle, "onnx-cpu") as session:
        assert session.info.precision == "fp32"


def test_a_budget_that_nothing_meets_is_told_with_the_table(
    job: ExportJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    _times(monkeypatch, fp32_ms=20)
    monkeypatch.setattr(int8_artifacts, "judge_of", lambda _: lambda _: Verdict(0.9999, None, 0))
    exact = ExportOptions(tolerances=int8_tolerances(miou_drop=0, mask_agreement=1))
    with pytest.raises(Int8RejectedError, match="no layer can be quantised within") as caught:
        int8_artifacts.choose_mixes(replace(job, options=exact))
    lines = caught.value.table.splitlines()
    alone = [line for line in lines if line.startswith("only ")]
    assert len(alone) == 12 and any(line.startswith("... 34 more, ") for line in lines)
    assert [path.name for path in job.folder.glob("*int8*")] == []


def test_what_a_user_keeps_where_the_search_would_is_spared(
    small_checkpoint: Path, profile: Profile, patches: PatchSet, tmp_path: Path
) -> None:
    state = tmp_path / "bundle.int8-search"
    state.mkdir()
    (state / "thesis.txt").write_text("mine")
    out = tmp_path / "bundle"
    options = ExportOptions((Precision.INT8,), tolerances=LOOSE)
    with pytest.raises(UsageError, match=r"holds thesis\.txt; move it away"):
        export_bundle(small_checkpoint, profile, out, patches, options)
    export_bundle(
        small_checkpoint, profile, out, patches
    )  # without INT8 it is none of its business
    assert (state / "thesis.txt").read_text() == "mine"


def test_a_finished_search_removes_its_own_files_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    clear_state(state)
    state.mkdir()
    for name in ("verdicts.jsonl", "histograms-0123.npz", "notes.txt"):
        (state / name).write_text("x")
    clear_state(state)
    assert [p.name for p in state.iterdir()] == ["notes.txt"]
    (state / "notes.txt").unlink()
    clear_state(state)
    assert not state.exists()
    state.write_text("a file")
    with pytest.raises(UsageError, match="is in the way of the INT8 search"):
        check_state(state)
