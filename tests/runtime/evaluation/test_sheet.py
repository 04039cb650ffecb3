from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import Profile, TissueClass
from sshr_deploy.runtime.evaluation.sheet import CELL_PX, Sample, make_sample, write_sheet
from sshr_deploy.scores import confusion_matrix

GREY = 128


def sample(height: int, width: int, name: str = "a.png", num_classes: int = 3) -> Sample:
    """Truth: class 0 on the left, background on the right; prediction: class 1 everywhere."""
    rgb = np.full((height, width, 3), GREY, np.uint8)
    truth = np.full((height, width), num_classes, np.uint8)
    truth[:, : width // 2] = 0
    prediction = np.ones_like(truth)
    return make_sample(
        name, rgb, truth, prediction, confusion_matrix(truth, prediction, num_classes)
    )


def colours(path: Path, column: int, cell: int) -> NDArray[np.uint8]:
    """Colours within one column of the pictures, [K, 3]."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    left = 14 + column * (cell + 14)
    picture = sheet[14 + 3 * 30 + 5 : 14 + 3 * 30 + 195, left : left + cell]
    return np.unique(picture.reshape(-1, 3), axis=0)


def test_samples_are_shrunk_and_never_enlarged() -> None:
    big, small = sample(1000, 500), sample(30, 20)
    assert big.rgb.shape == (CELL_PX, CELL_PX // 2, 3)
    assert big.truth.shape == big.prediction.shape == (CELL_PX, CELL_PX // 2)
    assert small.rgb.shape == (30, 20, 3)
    assert sample(3000, 1).rgb.shape == (CELL_PX, 1, 3)


def test_the_prediction_is_bare_where_the_truth_is_background() -> None:
    made = sample(100, 100)
    assert (made.prediction[:, 50:] == 3).all()
    assert (made.prediction[:, :50] == 1).all()
    assert (made.pixel_accuracy, made.mean_iou) == (0.0, 0.0)


def test_scores_are_those_of_the_image_at_its_own_size() -> None:
    truth = np.zeros((2000, 10), np.uint8)
    prediction = truth.copy()
    prediction[::2] = 1
    confusion = confusion_matrix(truth, prediction, 3)
    made = make_sample("a", np.zeros((2000, 10, 3), np.uint8), truth, prediction, confusion)
    assert (made.pixel_accuracy, made.mean_iou) == (0.5, 0.25)


def test_columns_show_image_truth_and_prediction(tmp_path: Path, profile: Profile) -> None:
    path = tmp_path / "sheet.png"
    write_sheet(path, [sample(200, 200)], profile, "title")
    grey = [GREY] * 3
    assert colours(path, 0, 200).tolist() == [grey]
    for column, label in ((1, 0), (2, 1)):
        found = colours(path, column, 200).tolist()
        tint = 0.55 * GREY + 0.45 * np.array(profile.palette[label])
        assert np.rint(tint).astype(int).tolist() in found
        assert grey in found, "background is untouched"


def test_a_fourth_column_shows_reference_mode(tmp_path: Path, profile: Profile) -> None:
    path, seamless = tmp_path / "sheet.png", sample(200, 200)
    truth = np.full((200, 200), 3, np.uint8)
    truth[:, :100] = 0
    right = make_sample(
        "a.png", seamless.rgb, truth, np.zeros_like(truth),
        confusion_matrix(truth, np.zeros_like(truth), 3),
    )  # fmt: skip
    write_sheet(path, [seamless], profile, "title", reference=[right])
    with Image.open(path) as sheet:
        assert sheet.width == 4 * 200 + 5 * 14
    for column, label in ((1, 0), (2, 1), (3, 0)):
        tint = 0.55 * GREY + 0.45 * np.array(profile.palette[label])
        assert np.rint(tint).astype(int).tolist() in colours(path, column, 200).tolist()


def test_a_legend_of_many_long_names_stays_inside(tmp_path: Path, profile: Profile) -> None:
    names = [f"class number {i:02d} of a long list" for i in range(15)] + ["ö" * 80]
    classes = tuple(TissueClass(name=n, color="#123456") for n in names)
    wide = profile.model_copy(update={"classes": classes})
    samples = [sample(20, 20, "very long name " * 20, 16), sample(900, 90, "ёж.png", 16)]
    path = tmp_path / "sheet.png"
    write_sheet(path, samples, wide, "a title " * 50)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    for edge in (sheet[:, :14], sheet[:, -14:], sheet[:5], sheet[-5:]):
        assert (edge == 255).all()
    assert sheet.shape[1] == 3 * 200 + 4 * 14


def test_an_image_of_background_and_no_samples_at_all(tmp_path: Path, profile: Profile) -> None:
    truth = np.full((50, 50), 3, np.uint8)
    rgb = np.full((50, 50, 3), 255, np.uint8)
    made = make_sample("glass", rgb, truth, truth, confusion_matrix(truth, truth, 3))
    assert made.mean_iou is None
    write_sheet(tmp_path / "one.png", [made], profile, "glass")
    write_sheet(tmp_path / "none.png", [], profile, "nothing")
    assert {p.name for p in tmp_path.iterdir()} == {"one.png", "none.png"}


def test_a_place_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, profile: Profile
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_sheet(tmp_path / "file" / "sheet.png", [], profile, "title")
