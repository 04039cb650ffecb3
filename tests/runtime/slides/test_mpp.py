from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.errors import MissingMppError, UsageError
from sshr_deploy.runtime.slides import Mpp, resolve_mpp
from tests.runtime.slides.synthetic import ArrayReader

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
    ],
)
def test_the_files_plausible_value_wins(
    stated: Pair | None, given: float | None, force: bool, wanted: Mpp
) -> None:
    assert resolve_mpp(reader_with(stated), given, force=force) == wanted


@pytest.mark.parametrize("stated", [None, (352.8, 352.8), (0.001, 0.001), (0.25, 0.5), (0.5, 25.0)])
def test_without_a_usable_value_the_error_names_the_flag(stated: Pair | None) -> None:
    with pytest.raises(MissingMppError, match=r"^synthetic\.svs .*--mpp") as caught:
        resolve_mpp(reader_with(stated), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [0.0, -1.0, 0.01, 21.0, float("nan"), float("inf")])
def test_an_absurd_flag_is_wrong_usage(given: float) -> None:
    with pytest.raises(UsageError, match="--mpp"):
        resolve_mpp(reader_with(None), given)


def test_force_needs_a_value() -> None:
    with pytest.raises(UsageError, match="--force-mpp"):
        resolve_mpp(reader_with((0.5, 0.5)), None, force=True)
