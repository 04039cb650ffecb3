"""Pictures of documents: each kind has its panels, and they say what stands in the rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from sshr_deploy.benchmarks.report.pictures import write_pictures
from sshr_deploy.benchmarks.report.records import Agreement, BenchmarkDocument
from tests.benchmarks.report.documents import BUSY, make_document, make_row

STEADY = [10.0, 10.1, 10.2, 10.05, 9.95, 10.1]


def texts(document: BenchmarkDocument, folder: Path) -> str:
    """Of the SVG, which keeps them as text; the PNG has to be there too."""
    png, svg = write_pictures(document, folder / "x")
    with Image.open(png) as image:
        assert image.format == "PNG"
    found = re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text("utf-8"))
    return "\n".join(found)


def test_latency_by_batch_with_the_agreement_of_each_line(tmp_path: Path) -> None:
    rows = [
        make_row(f"{name}, batch {batch}", STEADY, facts={"batch": batch, "contender": name})
        for name in ("onnx-cpu fp32", "$x$ & <y>")
        for batch in (1, 8)
    ]
    rows.append(make_row("trtexec, batch 1", [], not_measured="absent", facts={"batch": 1}))
    rows.append(make_row("onnx-cpu fp32, cold start", STEADY, unit="s"))
    found = texts(make_document(rows), tmp_path)
    for words in (
        "Latency of wsss4luad, width 8",
        "Time of a call in ms by batch",
        "Patches/s by batch",
        "onnx-cpu fp32, masks 100.000%",
        "Cold start to the first label map, in s",
        "onnx-cpu fp32, cold start",
        "$x$ &amp; &lt;y&gt;, masks 100.000%",
        "A processor, 2 cores, load 0.1 to 1.2, other work 1%; 2026-11-28T14:00:00Z",
    ):
        assert words in found
    assert "trtexec" not in found


def test_one_batch_size_has_bars_instead_of_lines(tmp_path: Path) -> None:
    rows = [
        make_row(f"{name}, batch 1", STEADY, facts={"batch": 1, "contender": name})
        for name in ("onnx-cpu fp32", "PyTorch eager")
    ]
    found = texts(make_document(rows), tmp_path)
    assert "Medians in ms" in found
    assert "by batch" not in found


@pytest.mark.parametrize("kind", ["latency", "int8"])
def test_a_way_whose_masks_disagree_is_marked(tmp_path: Path, kind: Any) -> None:
    wrong = Agreement(masks=0.4, cam_error=None, misses=("masks 40%",))
    rows = [
        make_row("right, batch 1", STEADY, facts={"batch": 1}),
        make_row("wrong, batch 1", STEADY, facts={"batch": 1}),
        make_row("wrong, batch 8", STEADY, agreement=wrong,
                 facts={"batch": 8, "unqualified": "masks 40%"}),
    ]  # fmt: skip
    found = texts(make_document(rows, kind), tmp_path)
    marked = "wrong *, masks 40.000%" if kind == "latency" else "wrong, batch 8 *"
    assert marked in found and "right *" not in found
    assert "*: its masks disagree with the reference" in found


def test_throughput_has_a_line_of_each_number_of_streams(tmp_path: Path) -> None:
    rows = [
        make_row(f"batch {batch}, {streams} streams", STEADY, unit="patches/s", better="higher",
                 facts={"batch": batch, "streams": streams})
        for batch in (1, 2)
        for streams in (1, 2)
    ]  # fmt: skip
    found = texts(make_document(rows, "throughput"), tmp_path)
    for words in (
        "1 stream, masks",
        "2 streams, masks",
        "within 5 % of the best",
        "patches a call",
    ):
        assert words in found
    fields = [row.model_copy(update={"unit": "fields/s"}) for row in rows]
    assert "fields a call" in texts(make_document(fields, "throughput"), tmp_path)


def window(until_s: float, **changes: Any) -> dict[str, Any]:
    gpu = {"index": 0, "temperature_celsius": 60, "sm_clock_mhz": None, "power_w": None}
    return {
        "until_s": until_s, "inputs_per_s": 30.0, "watts": {"cpu": 55.0}, "cpu_mhz": None,
        "cpu_celsius": None, "gpus": [gpu], **changes,
    }  # fmt: skip


def test_soak_has_what_the_machine_told(tmp_path: Path) -> None:
    windows = [window(10.0), window(20.0, cpu_celsius=71.0)]
    row = make_row("soak", STEADY, unit="patches/s", better="higher", facts={"windows": windows})
    found = texts(make_document([row], "soak"), tmp_path)
    for words in ("Patches/s, over minutes", "Temperature in °C, over minutes", "Power in W"):
        assert words in found
    assert "Clock" not in found


def test_stages_stand_below_the_whole_run(tmp_path: Path) -> None:
    stage = make_row("stage reading", STEADY, unit="s", agreement=None, facts={"threads": 2},
                     figures={"busy_share": 0.42, "share_of_run": None})  # fmt: skip
    rows = [make_row("whole run", STEADY, unit="s"), stage]
    found = texts(make_document(rows, "pipeline"), tmp_path)
    for words in ("whole run", "10.07 s, masks 100.000%", "reading (2 threads)", "42%"):
        assert words in found


def test_peers_stand_side_by_side_by_form(tmp_path: Path) -> None:
    rows = [
        make_row(f"{name}, {form}", samples, unit="s", figures=figures, not_measured=why,
                 facts={"contender": name, "form": form})
        for form in ("whole process", "without start-up")
        for name, samples, figures, why in (
            ("ours", STEADY, {"mm2_per_s": 0.4}, None),
            ("WSInfer", [], {}, "not installed"),
        )
    ]  # fmt: skip
    found = texts(make_document(rows, "slides"), tmp_path)
    for words in ("mm2/s, whole process", "0.4, masks 100.000%", "WSInfer", "not measured"):
        assert words in found


def test_any_other_benchmark_has_its_medians_and_a_busy_machine_is_told(tmp_path: Path) -> None:
    document = make_document([make_row("fp32", STEADY)], "int8", load=BUSY, complete=False)
    found = texts(document, tmp_path)
    for words in ("(interrupted)", "10.07 ms, masks 100.000%", "so the machine was busy"):
        assert words in found


def test_the_same_document_makes_the_same_file(tmp_path: Path) -> None:
    document = make_document([make_row("fp32", STEADY)], "int8")
    one, other = (write_pictures(document, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.parametrize("kind", ["latency", "int8", "soak"])
def test_nothing_to_draw_makes_no_file(tmp_path: Path, kind: Any) -> None:
    document = make_document([make_row("a", [], not_measured="no GPU")], kind)
    assert write_pictures(document, tmp_path / "x") == ()
    assert list(tmp_path.iterdir()) == []
