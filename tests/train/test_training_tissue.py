"""Precise statistics, and what a checkpoint tells of the patches that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sshr_deploy.known_tissue import KNOWN_TISSUE_KEY, KnownTissue, known_tissue_of
from sshr_deploy.model import SSHR, ModelConfig, normalise
from sshr_deploy.model.batch_norms import MOMENTS_PREFIX, batch_norms, measure, moments_from_tensors
from sshr_deploy.model.checkpoint import load_checkpoint, read_aside, read_header
from sshr_deploy.train.adaptation.tuning import training_moments
from sshr_deploy.train.dataset import TrainingPatch, read_training_set
from sshr_deploy.train.recipe import BatchNormMode
from sshr_deploy.train.run import train
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME
from sshr_deploy.train.training_tissue import TrainingTissue
from tests.train.watching import SGD, Watcher, make_job

pytestmark = pytest.mark.usefixtures("one_thread")


def _model() -> SSHR:
    torch.manual_seed(3)
    return SSHR(ModelConfig(4, 1)).train()


def _patches(dataset: Path) -> tuple[TrainingPatch, ...]:
    return read_training_set(dataset, make_job(dataset, dataset).profile)


def _tissue(dataset: Path, count: int = 5, batch_norm: str = "learn") -> TrainingTissue:
    recipe = replace(SGD, precise_statistics=count, batch_norm=BatchNormMode(batch_norm))
    watcher = Watcher()
    tissue = TrainingTissue(make_job(dataset, dataset, recipe), _patches(dataset), watcher.warning)
    assert watcher.news == []
    return tissue


def test_settled_norms_are_those_of_one_batch_of_all_patches(dataset: Path) -> None:
    """The reference is the training mode of PyTorch itself."""
    model, tissue = _model(), _tissue(dataset)
    tissue.settle(model)
    batch = normalise(torch.from_numpy(tissue.rgb))
    reference = model.eval().features(batch).deep
    for norm in batch_norms(model).values():
        norm.train()
    with torch.no_grad():
        assert torch.allclose(model.features(batch).deep, reference, atol=1e-4)


def test_frozen_norms_stay_as_they_are(dataset: Path) -> None:
    model, before = _model(), _model().state_dict()
    _tissue(dataset, batch_norm="frozen").settle(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_patches_are_spread_evenly_over_the_set(dataset: Path) -> None:
    everything = _tissue(dataset, count=999).rgb
    assert len(everything) == 13
    assert np.array_equal(_tissue(dataset, count=5).rgb, everything[[0, 3, 6, 9, 12]])


@pytest.mark.parametrize("batch_norm", ["learn", "frozen"])
def test_moments_are_those_of_the_network_as_it_is_written(dataset: Path, batch_norm: str) -> None:
    model, tissue = _model(), _tissue(dataset, batch_norm=batch_norm)
    tissue.settle(model)
    first, again = tissue.describe(model), tissue.describe(model)  # measured once more
    assert first.header == again.header
    assert all(torch.equal(value, again.tensors[name]) for name, value in first.tensors.items())
    found, expected = moments_from_tensors(model, first.tensors), measure(model, tissue.rgb)
    assert found is not None
    for name, pair in expected.items():
        assert torch.equal(found[name].mean, pair.mean)
        assert torch.equal(found[name].spread, pair.spread)
    assert model.training


def test_synchronised_norms_are_settled_too(dataset: Path) -> None:
    plain, tissue = _model(), _tissue(dataset, count=2)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(_model())  # type: ignore[no-untyped-call]
    tissue.settle(plain)
    tissue.settle(model)
    other = model.state_dict()
    assert all(torch.equal(value, other[name]) for name, value in plain.state_dict().items())


def test_what_a_checkpoint_knows(dataset: Path) -> None:
    told = _tissue(dataset).describe(_model())
    known = KnownTissue.model_validate_json(told.header[KNOWN_TISSUE_KEY])
    assert known.source == f"5 of 13 training patches of {dataset.name}"
    assert known.patches == 5
    assert known.class_shares is not None
    assert sum(known.class_shares) == pytest.approx(1)
    assert len(known.appearance.layer_mean) == 1


def test_patches_without_tissue_are_a_warning(dataset: Path, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "white[1 0 0 0].png"
    cv2.imwrite(str(path), np.full((224, 224, 3), 255, np.uint8))
    watcher = Watcher()
    patch = TrainingPatch(path, (1, 0, 0, 0))
    told = TrainingTissue(make_job(dataset, dataset), [patch], watcher.warning).describe(_model())
    assert told.header == {}
    assert told.tensors
    assert [text for text in watcher.news if "no stained tissue" in text] == watcher.news != []


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("count", [6, 0])
def test_a_run_ends_with_precise_statistics(dataset: Path, tmp_path: Path, count: int) -> None:
    out = tmp_path / "run"
    recipe = replace(SGD, precise_statistics=count, epochs=1)
    train(make_job(dataset, out, recipe), Watcher())
    for name in (BEST_NAME, LAST_NAME):
        model, header = load_checkpoint(out / name), read_header(out / name)
        assert (known_tissue_of(header, name) is None) == (count == 0)
        assert (read_aside(out / name, MOMENTS_PREFIX) == {}) == (count == 0)
        if count:
            for norm, moments in training_moments(out / name, model).items():
                mean = batch_norms(model)[norm].running_mean
                assert mean is not None
                assert torch.equal(mean, moments.mean.float())
