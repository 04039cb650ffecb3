from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sshr_deploy.model import normalise, predict
from sshr_deploy.model.checkpoint import load_checkpoint


def test_outputs_are_those_of_the_whole_network(small_checkpoint: Path) -> None:
    model = load_checkpoint(small_checkpoint)
    patches = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    with torch.inference_mode():
        cams = model(normalise(patches))
    found = predict(model, patches)
    assert {output.dtype for output in found} == {np.dtype(np.float32)}
    assert [cam.shape for cam in found[:3]] == [(2, 3, 8, 12)] * 3
    for name in ("cam_28_1", "cam_28_2", "cam_deep"):
        wanted = getattr(cams, name).clamp(min=0).numpy()
        np.testing.assert_array_equal(getattr(found, name), wanted)
    wanted = 1 / (1 + np.exp(-cams.cam_deep.numpy().mean((2, 3))))
    np.testing.assert_allclose(found.prob, wanted, rtol=1e-6)
