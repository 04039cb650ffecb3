from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import DatasetError
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import read_split
from sshr_deploy.scores import scores_from
from sshr_deploy.train.adaptation.qualify import (
    Gain,
    gain_interval,
    measure_gain,
    objections_to_gain,
)


def test_the_interval_is_that_of_a_plain_paired_bootstrap() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.integers(0, 50, (2, 6, 3, 4))
    before[:, 2] = after[:, 2] = 0  # a class that is not there
    gains = []
    for chosen in np.random.default_rng(8).integers(6, size=(3000, 6)):
        pair = [scores_from(counts[chosen].sum(0)).mean_iou for counts in (before, after)]
        gains.append(pair[1] - pair[0])
    expected = np.percentile(gains, (2.5, 97.5))
    np.testing.assert_allclose(gain_interval(before, after), expected, atol=0.01)
    assert gain_interval(before, before) == (0, 0)
    assert gain_interval(before, after) == gain_interval(before, after)


def test_images_of_background_alone_do_not_spoil_it() -> None:
    counts = np.zeros((2, 2, 3), np.int64)
    counts[0] = [[5, 1, 0], [0, 6, 0]]
    low, high = gain_interval(counts, counts)
    assert low == high == 0


def test_gain_is_that_of_two_evaluations(
    learned: Path, profile: Profile, tissue: NDArray[np.uint8], tmp_path: Path
) -> None:
    for part, content in (("img", tissue[0]), ("mask", tissue[0, ..., 1] // 64)):
        (tmp_path / part).mkdir()
        Image.fromarray(content).save(tmp_path / part / "a.png")
    model = load_checkpoint(learned)
    images = read_split(tmp_path, profile)
    said: list[str] = []
    gain = measure_gain(model, model, profile, images, said.append)
    assert gain.before == gain.after > 0
    assert max(map(abs, gain.interval)) == 0
    assert len(said) == 2
    assert objections_to_gain(gain, tmp_path) == []
    Image.fromarray(np.full((224, 224), 3, np.uint8)).save(tmp_path / "mask" / "a.png")
    with pytest.raises(DatasetError, match="background only"):
        measure_gain(model, model, profile, images, said.append)


def test_a_worse_network_is_objected_to() -> None:
    (line,) = objections_to_gain(Gain(0.5, 0.4876, (-0.03, 0.01)), Path("val"))
    assert "on val would fall from 0.5000 to 0.4876 (-0.0124, 95 % interval -0.0300" in line
