from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sshr_deploy.model import Inference, normalise, predict
from sshr_deploy.model.checkpoint import load_checkpoint


def test_outputs_are_those_of_the_whole_network(small_checkpoint: Path) -> None:
    model = load_checkpoint(small_checkpoint)
    patches = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    with torch.inference_mode():
        cams = model(normalise(patches))
    found = predict(model, patches)
    assert [cam.shape for cam in found[:3]] == [(2, 3, 8, 12)] * 3
    for name in ("cam_28_1", "cam_28_2", "cam_deep"):
        wanted = getattr(cams, name).clamp(min=0).numpy()
        np.testing.assert_array_equal(getattr(found, name), wanted)
    wanted = 1 / (1 + np.exp(-cams.cam_deep.numpy().mean((2, 3))))
    np.testing.assert_allclose(found.prob, wanted, rtol=1e-6)


def test_weights_of_another_type_give_float32(small_checkpoint: Path) -> None:
    model = load_checkpoint(small_checkpoint)
    patches = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = Inference(model)(patches)
        found = Inference(model.double())(patches)
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype is torch.float32
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
