from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sshr_deploy.benchmarks.peers.torchscript import Scores
from sshr_deploy.benchmarks.slides.job import SlideJob
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.model.inference import predict
from sshr_deploy.model.normalisation import normalise
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import CamBatch, MaskRule
from sshr_deploy.runtime.masks import label_map, mask_rule

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit")
SIDES = {"height_px": 224, "width_px": 224}


def test_the_best_score_is_the_published_label() -> None:
    rng = np.random.default_rng(3)
    cams = [np.maximum(rng.normal(size=(4, 3, 28, 28)), 0).astype(np.float32) for _ in range(3)]
    prob = rng.random((4, 3)).astype(np.float32)
    prob[0] = 0.1, 0.3, 0.2  # none above the threshold: the best one stays on
    rule = MaskRule((0.6, 0.2, 0.2), 0.5)
    scores = Scores(rule.weights, rule.threshold)(*map(torch.from_numpy, (*cams, prob)))
    found = scores.argmax(1).numpy()
    batch = CamBatch(cams[0], cams[1], cams[2], prob)
    expected = np.stack([label_map(batch, index, rule, **SIDES) for index in range(4)])
    assert (found == expected).mean() > 0.9999


def test_the_files_are_the_network(small_checkpoint: Path, profile: Profile, job: SlideJob) -> None:
    rule, files = mask_rule(profile), json.loads(job.file.read_text())
    network, classifier = (
        torch.jit.load(files[name])  # type: ignore[no-untyped-call]
        for name in ("network", "classifier")
    )
    patches = np.random.default_rng(5).integers(0, 256, (3, 224, 224, 3), np.uint8)
    expected = predict(load_checkpoint(small_checkpoint), patches)
    with torch.inference_mode():
        scores, logits = network(normalise(patches))
        alone = classifier(normalise(patches))
    np.testing.assert_allclose(torch.sigmoid(logits), expected.prob, atol=1e-5)
    np.testing.assert_allclose(alone, logits, rtol=1e-4)
    batch = CamBatch(*expected)
    labels = np.stack([label_map(batch, index, rule, **SIDES) for index in range(3)])
    assert (scores.argmax(1).numpy() == labels).mean() > 0.999
