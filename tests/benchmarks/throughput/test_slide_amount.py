from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.benchmarks.throughput.slide_amount import amount_of_mm2, amount_of_slide
from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import InputError
from tests.benchmarks.throughput.stand_in_engine import Clock, StandIn


def test_stated_tissue_is_so_many_patches(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    side_mm = 224 * bundle.manifest.profile.mpp_um / 1000
    found = amount_of_mm2(10 * side_mm**2, bundle)
    assert found.inputs == pytest.approx(10)
    assert found.input_mm2 == pytest.approx(side_mm**2)


def test_a_slide_is_what_a_run_would_plan(
    small_bundle_dir: Path, demo_slide: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = load_bundle(small_bundle_dir)
    session = StandIn(Clock(monkeypatch), lambda *_: 0.1, 1, 8)
    found = amount_of_slide(demo_slide, bundle, session)
    assert found.about == demo_slide.name
    assert found.inputs == int(found.inputs) > 4
    side_mm = 224 * bundle.manifest.profile.mpp_um / 1000
    assert found.mm2 == pytest.approx(found.inputs * side_mm**2)
    assert found.mm2 < 2220 * 2967 * 0.499**2 / 1e6 * 1.4, "of the slide, with tiles at its ends"
    (tmp_path / "no slide.svs").write_bytes(b"no slide")
    with pytest.raises(InputError):
        amount_of_slide(tmp_path / "no slide.svs", bundle, session)
