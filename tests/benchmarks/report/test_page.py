"""The page of what was measured agrees with the files, and says what is missing."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from sshr_deploy.atomic import write_json
from sshr_deploy.benchmarks.report.page import measured_parts
from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Gpu
from sshr_deploy.errors import InputError
from tests.benchmarks.report.documents import MACHINE, make_document, make_row


def page(folder: Path, **documents: BenchmarkDocument | dict[str, object]) -> str:
    for stem, found in documents.items():
        content = found if isinstance(found, dict) else found.model_dump(mode="json")
        write_json(folder / f"{stem}.json", content)
    return "\n\n".join(measured_parts(folder, folder / "measured"))


def differences(text: str, results: Path) -> list[str]:
    """Rows of the files whose medians the page does not have."""
    found = []
    for path in sorted(results.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        if content.get("schema_version") != 1:
            continue
        section = text.partition(f"### {path.stem}\n")[2].partition("\n### ")[0]
        section = section.partition("\n## ")[0].replace("\\", "")
        for row in content["rows"]:
            lines = (line.split(" | ") for line in section.splitlines())
            cells = [line[1] for line in lines if line[0].removesuffix(" *") == f"| {row['name']}"]
            shown = cells[0].split()[0] if cells else ""
            median = statistics.median(row["samples"]) if row["samples"] else None
            right = shown == "not" if median is None else is_near(shown, median)
            found += [] if right else [f"{path.stem}: {row['name']}"]
    return found


def is_near(shown: str, median: float) -> bool:
    try:
        return float(shown) == pytest.approx(median, rel=1e-3)
    except ValueError:
        return False


def test_the_committed_page_has_every_file_and_its_medians(repo_root: Path) -> None:
    text = (repo_root / "docs" / "measured.md").read_text("utf-8")
    results = repo_root / "benchmarks" / "results"
    files = sorted(results.glob("*.json"))
    assert files
    assert [path.name for path in files if f"{path.stem}.json" not in text.replace("\\", "")] == []
    assert differences(text, results) == []


def test_a_page_that_is_not_that_of_the_files_is_found(tmp_path: Path) -> None:
    rows = [
        make_row("fp32, batch 1", [10.0, 12.0, 11.0]),
        make_row("int8", [5.0], facts={"unqualified": "masks 40%"}),
        make_row("a_b", [], not_measured="no GPU"),
        make_row("fp32, cold start", [1.5], unit="s"),
    ]
    text = page(tmp_path, mine=make_document(rows), other=make_document(rows[:1], "int8"))
    assert differences(text, tmp_path) == []
    page(tmp_path, mine=make_document([make_row("fp32, batch 1", [10.0, 10.1]), *rows[1:]]))
    assert differences(text, tmp_path) == ["mine: fp32, batch 1"]
    page(tmp_path, mine=make_document([*rows, make_row("new", [1.0])]))
    assert differences(text, tmp_path) == ["mine: new"]


def test_a_document_in_full(tmp_path: Path) -> None:
    rows = [
        make_row("fp32, batch 1", [10.0, 11.0, 12.0], figures={"p99_ms": None, "speed": 1.0},
                 refused={"p99_ms": "needs 299 calls, there were 3"}),
        make_row("onnx_cuda", [], not_measured="no NVIDIA GPU"),
    ]  # fmt: skip
    text = page(tmp_path, mine=make_document(rows, complete=False))
    for words in (
        "## Latency\n\n### mine\n\n- `benchmarks/results/mine.json`, 2026-11-28T14:00:00Z",
        "- A processor, 2 cores, load 0.1 to 1.2, other work 1%",
        "- sshr-deploy 1.0, commit 0123456789ab; onnxruntime 1.30.0",
        "- wsss4luad, width 8",
        "- interrupted",
        "| row | median | quartiles | samples | agreement | speed |",
        "| fp32, batch 1 | 11 ms | 10.5-11.5 | 3 | 100.000% | 1 |",
        "| onnx\\_cuda | not measured | - | 0 | 100.000% | - |",
        "- fp32, batch 1: p99 ms: needs 299 calls, there were 3",
        "- onnx\\_cuda: no NVIDIA GPU",
    ):
        assert words in text
    assert "Earlier" not in text


def test_a_row_whose_masks_disagree_is_marked(tmp_path: Path) -> None:
    wrong = make_row("int8, batch 1", [10.0], facts={"unqualified": "masks 40%"})
    text = page(tmp_path, mine=make_document([make_row("fp32, batch 1", [11.0]), wrong]))
    assert "| int8, batch 1 \\* |" in text and "| fp32, batch 1 |" in text
    assert "- int8, batch 1: \\* not qualified: masks 40%" in text


def test_what_is_missing_is_told_once(tmp_path: Path) -> None:
    text = page(tmp_path, mine=make_document([make_row("a", [1.0])]))
    missing = text.partition("## Not measured")[2]
    assert "- throughput, soak, pipeline, slides" in missing
    assert missing.count("a GPU") == missing.count("VNNI") == 1
    gpu = Gpu(name="A GPU", driver=None, memory_mib=None)
    machine = MACHINE.model_copy(update={"gpus": (gpu,), "processor": "X, VNNI"})
    text = page(tmp_path, other=make_document([], "soak", environment=machine))
    missing = text.partition("## Not measured")[2]
    assert "- throughput, pipeline" in missing
    assert "GPU" not in missing and "VNNI" not in missing


def test_files_of_earlier_forms_are_listed(tmp_path: Path) -> None:
    old: dict[str, object] = {
        "kind": "adaptation",
        "environment": {"processor": "Old", "cores": 1},
    }
    text = page(tmp_path, old=old)
    assert "| old.json | adaptation | Old, 1 core | - |" in text


def test_a_picture_is_shown_where_it_is(tmp_path: Path) -> None:
    document = make_document([make_row("a", [1.0])])
    assert "![" not in page(tmp_path, mine=document)
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "mine.png").touch()
    assert "![mine](measured/mine.png)" in page(tmp_path, mine=document)


def test_a_broken_document_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        page(tmp_path, broken={"schema_version": 1})
