from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.doctor.slides import look_at_slides
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.plan import survey_slide
from tests.bundles import copy_that_knows
from tests.runtime.small_slides import measure_slide, small_picture, small_slide


@pytest.fixture
def bundle(small_bundle_dir: Path, tmp_path: Path) -> Bundle:
    """It knows the tissue of `small_slide`."""
    first_layer = np.ones((2, 3, 3, 3), np.float32)
    with open_slide(small_slide(tmp_path / "known.tif")) as reader:
        look = measure_slide(reader, survey_slide(reader, 1.0), first_layer)
    assert look is not None
    return load_bundle(copy_that_knows(small_bundle_dir, tmp_path / "knows", look, first_layer))


def test_each_slide_has_a_line(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    small_slide(folder / "a.tif")
    small_slide(folder / "b.tif", (small_picture() * 0.5).astype(np.uint8))
    small_slide(folder / "c.tif", np.full((300, 300, 3), 243, np.uint8))
    (folder / "d.svs").write_bytes(b"no slide")
    (folder / "e.png").write_bytes(b"not looked at")
    looks = look_at_slides(folder, bundle)
    assert [Path(look.path).name for look in looks] == ["a.tif", "b.tif", "c.tif", "d.svs"]
    assert [look.verdict for look in looks] == ["fits", "far", None, None]
    assert looks[0].score == 0
    assert "adapt" in looks[1].words
    assert looks[2].words == "no tissue found"
    assert "d.svs" in looks[3].words


def test_what_cannot_be_looked_at_is_refused(
    bundle: Bundle, small_bundle_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no slide"):
        look_at_slides(folder, bundle)
    with pytest.raises(UsageError, match=r"does not state which tissue .* export it again"):
        look_at_slides(folder, load_bundle(small_bundle_dir))
