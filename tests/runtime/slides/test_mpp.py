from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sshr_deploy.errors import InputError, MissingMppError, UsageError
from sshr_deploy.runtime.slides import Mpp, choose_level, open_slide, resolve_mpp
from tests.runtime.slides.synthetic import (
    ArrayReader,
    smooth_noise,
    write_dicom,
    write_ome,
    write_svs,
)

Pair = tuple[float, float]


def reader_with(stated: Pair | None) -> ArrayReader:
    return ArrayReader([np.zeros((8, 8, 3), np.uint8)], stated)


@pytest.mark.parametrize(
    ("stated", "given", "force", "wanted"),
    [
        ((0.499, 0.5), None, False, Mpp(0.499, 0.5, "file")),
        ((0.499, 0.5), 0.25, False, Mpp(0.499, 0.5, "file")),
        ((0.499, 0.5), 0.25, True, Mpp(0.25, 0.25, "--mpp (forced)")),
        (None, 0.25, False, Mpp(0.25, 0.25, "--mpp (the file has none)")),
        ((352.8, 352.8), 0.5, False, Mpp(0.5, 0.5, "--mpp (the file says 352.8 x 352.8 um)")),
        ((0.25, 0.5), 0.5, False, Mpp(0.5, 0.5, "--mpp (the file says 0.25 x 0.5 um)")),
        ((28.97, 28.97), 0.5, False, Mpp(28.97, 28.97, "file")),
        ((75.0, 75.0), None, False, Mpp(75.0, 75.0, "file")),
    ],
)
def test_the_files_plausible_value_wins(
    stated: Pair | None, given: float | None, force: bool, wanted: Mpp
) -> None:
    assert resolve_mpp(reader_with(stated), given, force=force) == wanted


NAN = float("nan")
IMPOSSIBLE: list[Pair] = [
    (352.8, 352.8), (25400 / 300, 25400 / 300), (0.001, 0.001), (0.25, 0.5), (0.5, 25.0),
    (0.0, 0.0), (-0.5, -0.5), (NAN, NAN),
]  # fmt: skip


@pytest.mark.parametrize("stated", [None, *IMPOSSIBLE])
def test_without_a_usable_value_the_error_names_the_flag(stated: Pair | None) -> None:
    with pytest.raises(MissingMppError, match=r"^synthetic\.svs .*`mpp`") as caught:
        resolve_mpp(reader_with(stated), None)
    message = str(caught.value)
    assert "\n" not in message
    assert ("cannot be right" in message) == (stated is not None)


@pytest.mark.parametrize("magnification", [None, 20.0])
@pytest.mark.parametrize("stated", [None, *IMPOSSIBLE])
def test_every_number_of_the_error_is_from_the_file(
    stated: Pair | None, magnification: float | None
) -> None:
    reader = reader_with(stated)
    reader.file_magnification = magnification
    with pytest.raises(MissingMppError) as caught:
        resolve_mpp(reader, None)
    numbers = {float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", str(caught.value))}
    of_the_file = {float(f"{v:.4g}") for v in (*(stated or ()), magnification or NAN)}
    assert numbers <= of_the_file
    assert magnification is None or "20x" in str(caught.value)


def test_an_overview_is_too_coarse_not_impossible(tmp_path: Path) -> None:
    write_dicom(tmp_path / "overview.dcm", smooth_noise(256, 200), mpp_um=28.97)
    with open_slide(tmp_path / "overview.dcm") as reader:
        assert reader.reader.endswith("(dicom)")
        mpp = resolve_mpp(reader, None)
        assert mpp == Mpp(28.97, 28.97, "file")
        with pytest.raises(
            InputError, match=r"too coarse for this model: .* 28\.97 um/px"
        ) as caught:
            choose_level(reader, mpp, 0.5)
    assert "`force_mpp`" in str(caught.value)


def test_a_users_pixel_size_that_is_too_coarse_is_not_called_the_files() -> None:
    reader = reader_with(None)
    with pytest.raises(InputError, match=r"--mpp \(the file has none\): check it") as caught:
        choose_level(reader, resolve_mpp(reader, 29.0), 0.5)
    assert "`force_mpp`" not in str(caught.value)


@pytest.mark.parametrize("stated", [0.0, -0.5, 352.8])
def test_what_a_file_states_is_shown_with_its_magnification(stated: float, tmp_path: Path) -> None:
    write_svs(tmp_path / "x.svs", [smooth_noise(64, 64)], stated)
    with (
        open_slide(tmp_path / "x.svs") as reader,
        pytest.raises(MissingMppError, match=rf"says its pixels are {stated:g} x {stated:g} um"),
    ):
        assert reader.file_magnification == 20
        resolve_mpp(reader, None)


@pytest.mark.parametrize(
    ("objectives", "wanted"), [((), None), ((40,), 40.0), ((40, 20), None), (("x",), None)]
)
def test_magnification_of_ome(
    objectives: tuple[object, ...], wanted: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "x.ome.tif"
    write_ome(path, [smooth_noise(64, 64)])
    xml = tifffile.tiffcomment(path)
    assert isinstance(xml, str)
    named = "".join(f'<Objective NominalMagnification="{o}"/>' for o in objectives)
    xml = xml.replace("<Image ", f"<Instrument>{named}</Instrument><Image ", 1)
    tifffile.tiffcomment(path, xml)
    with open_slide(tmp_path / "x.ome.tif") as reader:
        assert reader.file_magnification == wanted


@pytest.mark.parametrize("given", [0.0, -1.0, 0.01, 81.0, NAN, float("inf")])
def test_an_absurd_flag_is_wrong_usage(given: float) -> None:
    with pytest.raises(UsageError, match="`mpp`"):
        resolve_mpp(reader_with(None), given)


def test_force_needs_a_value() -> None:
    with pytest.raises(UsageError, match="`force_mpp`"):
        resolve_mpp(reader_with((0.5, 0.5)), None, force=True)
