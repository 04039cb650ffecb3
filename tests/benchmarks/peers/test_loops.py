from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.constructed_slide import build_slide
from sshr_deploy.benchmarks.peers import loops, ours
from sshr_deploy.benchmarks.slides.job import SlideJob, SlideSettings, prepare_job
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.runtime.contract import CamBatch, MaskRule
from sshr_deploy.runtime.masks import label_map

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit")
AT_HALF = SlideSettings(mpp_um=0.5, force_mpp=True)


def labels_of(
    module: Any,
    job: SlideJob,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> NDArray[np.uint8]:
    out.mkdir()
    monkeypatch.setattr(sys, "argv", ["program", str(job.file), str(out), *arguments])
    module.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["tiles"] == job.tiles
    assert told["work_s"] > 0
    if module is ours:
        assert 0 < told["tiles_s"] < told["work_s"]
        assert told["mask_agreement"] > 0.99
    labels: NDArray[np.uint8] = np.load(out / "labels.npy")
    return labels


def test_all_label_the_tiles_as_the_product_does(
    job: SlideJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = labels_of(ours, job, tmp_path / "ours", monkeypatch, capsys)
    assert mine.shape == (job.tiles, 224, 224)
    tissue = mine < job.classes
    assert tissue.mean() > 0.3
    assert len(np.unique(mine[tissue])) > 1
    for loop, way in (
        ("openslide", "onnx"),
        ("dataloader", "onnx"),
        ("openslide", "pytorch"),
        ("openslide", "published"),
    ):
        out = tmp_path / f"{loop}-{way}"
        labels = labels_of(loops, job, out, monkeypatch, capsys, loop, way)
        assert (labels == mine)[tissue].mean() > 0.999, (loop, way)


def test_the_label_maps_of_the_loop_are_the_published_ones() -> None:
    rng = np.random.default_rng(1)
    cams = [np.maximum(rng.normal(size=(3, 28, 28)), 0).astype(np.float32) for _ in range(3)]
    prob = np.array([0.1, 0.9, 0.4], np.float32)
    rule = MaskRule((0.6, 0.2, 0.2), 0.3)
    job = {"patch_px": 224, "weights": rule.weights, "threshold": 0.3, "epsilon": 1e-8}
    batch = CamBatch(cams[0][None], cams[1][None], cams[2][None], prob[None])
    expected = label_map(batch, 0, rule, height_px=224, width_px=224)
    assert (loops.label_map(cams, prob, job) == expected).mean() > 0.9999


def test_tiles_past_the_edge_are_background() -> None:
    mask = np.arange(300 * 230, dtype=np.uint32).reshape(300, 230).astype(np.uint8)
    first, last = ours.tiles_of(mask, [(0, 0), (1, 1)], background=9)
    assert (first == mask[:224, :224]).all()
    assert (last[:76, :6] == mask[224:, 224:]).all()
    assert (last[76:] == 9).all()
    assert (last[:, 6:] == 9).all()


def test_another_checkpoint_is_refused(
    small_bundle_dir: Path, own_checkpoint: Path, slide: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(small_bundle_dir)
    with pytest.raises(UsageError, match=r"is not what .* was exported from; give small"):
        prepare_job(bundle, slide, own_checkpoint, tmp_path, AT_HALF)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        prepare_job(bundle, slide, tmp_path / "none", tmp_path, AT_HALF)


def test_glass_alone_is_refused(small_bundle_dir: Path, demo_slide: Path, tmp_path: Path) -> None:
    glass = tmp_path / "glass.svs"
    build_slide(demo_slide, glass, side_px=960, tissue_share=0.0)
    with pytest.raises(InputError, match="has no tissue"):
        prepare_job(load_bundle(small_bundle_dir), glass, None, tmp_path, AT_HALF)
