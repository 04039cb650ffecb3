from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.model import normalise


def test_normalise_is_that_of_imagenet() -> None:
    rgb = np.array([[[[0, 128, 255]]]], np.uint8)
    expected = [-0.485 / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalise(rgb).flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert normalise(np.zeros((2, 8, 16, 3), np.uint8)).shape == (2, 3, 8, 16)
