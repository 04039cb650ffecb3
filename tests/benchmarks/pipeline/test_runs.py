from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.benchmarks.pipeline import runs
from sshr_deploy.benchmarks.pipeline.runs import compute_alone, in_a_row, read_alone, run_whole
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.pipeline.units import FieldUnits, TileUnits
from tests.runtime.pipeline.flow_parts import SEVERAL, Session, slides
from tests.runtime.running import context_of
from tests.runtime.small_slides import small_slide


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


class Remembering(Session):
    """Counts the pixels of each batch that it is given."""

    def _compute(self, patches: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> CamBatch:
        self.given = [*getattr(self, "given", []), patches.shape]
        return super()._compute(patches)


@pytest.mark.parametrize("geometry", [PATCH, SEVERAL])
def test_the_engine_alone_has_the_batches_of_a_run(
    bundle: Bundle, tmp_path: Path, geometry: Geometry
) -> None:
    source = slides(tmp_path / "in", 2)
    sessions = Remembering(geometry), Remembering(geometry)
    found = run_whole(source, context_of(bundle, sessions[0], batch=4))
    compute_alone(source, context_of(bundle, sessions[1], batch=4))
    assert sorted(sessions[0].given) == sorted(sessions[1].given)
    assert found.slides == 2
    assert found.units == sum(count for count, *_ in sessions[0].given)
    assert found.tissue_mm2 > 0


def test_of_a_large_slide_the_first_batches_are_computed_alone(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, session = small_slide(tmp_path / "x.tif"), Remembering(PATCH)
    monkeypatch.setattr(runs, "_HELD_BYTES", 1)
    compute_alone(source, context_of(bundle, session, batch=2))
    assert session.given == [(2, *PATCH.input_shape())]


def test_reading_alone_reads_each_unit_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = small_slide(tmp_path / "x.tif"), []
    original = TileUnits.read

    def noted(units: TileUnits, reader: object, unit: tuple[int, ...]) -> object:
        read.append(unit)
        return original(units, reader, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(TileUnits, "read", noted)
    read_alone(source, context_of(bundle, Session(PATCH)), 2)
    assert len(read) == len(set(read)) > 1
    monkeypatch.setattr(FieldUnits, "read", None)  # nothing of fields is asked for


def test_a_slide_in_a_row_is_several_slides(bundle: Bundle, tmp_path: Path) -> None:
    source, folder = small_slide(tmp_path / "x.tif"), tmp_path / "row"
    folder.mkdir()
    context = context_of(bundle, Session(PATCH))
    one, three = run_whole(source, context), run_whole(in_a_row(source, folder, 3), context)
    assert (one.slides, three.slides) == (1, 3)
    assert three.units == 3 * one.units


def test_sources_without_slides_or_tissue_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    context = context_of(bundle, Session(PATCH))
    glass = small_slide(tmp_path / "glass.tif", np.full((300, 300, 3), 243, np.uint8))
    with pytest.raises(InputError, match="has no tissue; give slides"):
        read_alone(glass, context, 1)
    Image.new("RGB", (224, 224), (180, 90, 160)).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"x\.png holds images; give a slide"):
        run_whole(tmp_path / "x.png", context)
