"""Class and probability at a place of a slide."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.runtime.outputs import PROBABILITIES_NAME
from sshr_deploy.runtime.viewer import details
from sshr_deploy.runtime.viewer.catalogue import Catalogue
from sshr_deploy.runtime.viewer.opened import OpenInput
from sshr_deploy.runtime.writers.bands import BAND_PX
from sshr_deploy.runtime.writers.probabilities import probability_sink
from tests.runtime.viewer.results import PROFILE, add_slide, labels

MASK = labels(1100, 2200, cell=100)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a slide that has two pixels along each of the mask."""
    out = tmp_path_factory.mktemp("point")
    add_slide(out, out / "a.svs", MASK, (4400, 2200), mpp_um=0.5)
    return out


def test_probability_of_the_class_at_the_cell(out: Path) -> None:
    (entry,) = Catalogue(out).entries()
    rng = np.random.default_rng(0)
    prob = rng.random((PROFILE.num_classes, 138, 275)).astype(np.float16)
    path = entry.folder / PROBABILITIES_NAME
    size_px = MASK.shape[1], MASK.shape[0]
    with probability_sink(path, size_px, profile=PROFILE, mask_mpp_um=1.0, name="a") as sink:
        for top in range(0, len(MASK), BAND_PX):
            rows = MASK[top : top + BAND_PX]
            sink.put(rows, prob[:, top // 8 : -(-(top + len(rows)) // 8)])
    with OpenInput(replace(entry, files=entry.files | {PROBABILITIES_NAME})) as opened:
        for x, y in rng.integers((0, 0), (2200, 1100), (40, 2)).tolist():
            said = details.point(opened, 2 * x + 0.7, 2 * y + 1.3)
            label = int(MASK[y, x])
            assert said["label"] == label
            if label < PROFILE.num_classes:
                assert said["probability"] == float(prob[label, y // 8, x // 8])
                assert said["of"] == "here"


def test_mean_of_the_region_where_that_is_all_there_is(out: Path) -> None:
    (entry,) = Catalogue(out).entries()
    path = entry.folder / "regions.geojson"
    document = json.loads(path.read_bytes())
    lines = []
    for feature in document["features"]:
        feature["properties"]["measurements"] = {"Mean probability": 0.75}
        lines.append(json.dumps(feature, separators=(",", ":")))
    path.write_text('{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n")
    with OpenInput(entry) as opened:
        before = details.point(opened, 20, 20)  # regions are not read for a place alone
        assert before == {"label": 0, "name": PROFILE.classes[0].name}
        opened.outlines()
        assert details.point(opened, 20, 20) == {**before, "probability": 0.75, "of": "region"}
