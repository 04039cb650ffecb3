from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sshr_deploy.benchmarks.roofline.plot import write_roofline
from sshr_deploy.errors import OutputError
from tests.benchmarks.roofline.documents import roofline_document


def test_the_plot_names_engines_ceilings_and_shares_the_same_way_each_time(tmp_path: Path) -> None:
    png, svg = write_roofline(roofline_document(), tmp_path / "plots" / "mine")

    with Image.open(png) as image:
        assert image.width > 800
    text = svg.read_text()
    for words in ("onnx-cpu fp32, 50% of its ceiling", "openvino fp32", "fp32 product, 100"):
        assert words in text
    assert "memory, 10 GB/s" in text and "caches, 40 GB/s" in text
    assert "onnx-cpu int8" not in text
    write_roofline(roofline_document(), tmp_path / "plots" / "mine")
    assert svg.read_text() == text


def test_without_a_measured_engine_there_is_none(tmp_path: Path) -> None:
    document = roofline_document().model_copy(update={"rows": ()})
    assert write_roofline(document, tmp_path / "mine") == ()
    document = roofline_document()
    document.facts["ceilings"]["gflop_per_s"] = {}
    assert write_roofline(document, tmp_path / "mine") == (), "nor without a product"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_roofline(roofline_document(), tmp_path / "file" / "mine")
