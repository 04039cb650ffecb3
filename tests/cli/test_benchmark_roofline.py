"""`sshr-deploy benchmark roofline` as a person runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.roofline import measure, rows
from sshr_deploy.cli.roofline_table import print_roofline
from tests.benchmarks.roofline.documents import roofline_document
from tests.benchmarks.roofline.test_ceilings import CEILINGS
from tests.cli.command import Done, run_here


def run(*args: str | Path) -> Done:
    return run_here("benchmark", "roofline", *args)


def test_tables_plot_and_document(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure_ceilings", lambda precisions, threads: CEILINGS)
    monkeypatch.setattr(rows, "layers_told", lambda facts, busy: facts)  # on a busy machine too
    file, plots = tmp_path / "found.json", tmp_path / "plots"
    chosen = ("--engine", "onnx-cpu", "--batch", "1", "--seconds", "0.1", "--threads", "1")
    done = run(small_bundle_dir, *chosen, "--layers", "--plot", plots, "--json", file)

    assert done.returncode == 0, done.stderr
    document = read_document(file)
    assert document.benchmark == "roofline" and document.complete
    assert [row.name for row in document.rows] == ["onnx-cpu fp32"]
    assert document.settings["threads"] == 1
    for words in (
        "processor: products of fp32 100 GFLOP/s; copies 10.0 GB/s, within the caches (0 MiB)",
        "onnx-cpu fp32: layer",
        "kernels take",
        *map(str, (file, plots / "roofline.png", plots / "roofline.svg")),
    ):
        assert words in done.stdout


def test_a_table_tells_shares_layers_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_roofline(roofline_document())
    lines = capsys.readouterr().out.splitlines()
    (measured,) = (line.split() for line in lines if line.startswith("onnx-cpu fp32   "))
    assert measured[2:] == ["8", "3", "41.0", "50.0", "1", "50.0", "20.5", "50%", "99.9900%"]
    (layer, _) = (line.split() for line in lines if line.startswith("b7.conv_branch2a"))
    assert layer == [
        "b7.conv_branch2a",
        "Conv",
        "fp32",
        "40.0",
        "50.0",
        "1",
        "20.0",
        "20.0",
        "48.8%",
    ]
    text = "\n".join(lines)
    assert "time by kernel: Conv 98%, Add 2%" in text
    assert "2 kernels take 41.0 ms; with these 2 at their ceilings it would be 20.5 ms" in text
    assert "not measured: onnx-cpu int8: no VNNI" in lines
    assert "share not told of openvino fp32: the machine was busy" in lines


@pytest.mark.parametrize(("package", "extra"), [("onnx", "export"), ("matplotlib", "plots")])
def test_a_missing_package_names_its_extra(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = "sshr_deploy.benchmarks.roofline"
    for name in (f"{ours}.plot", f"{ours}.measure", f"{ours}.work", f"{ours}.layers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [name for name in sys.modules if name.startswith("sshr_deploy.train.drawing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = run(tmp_path, "--plot", tmp_path / "plots")
    assert done.returncode == 2
    assert f"{package} is not installed: pip install 'sshr-deploy[{extra}]'" in done.stderr


def test_a_plot_that_cannot_be_written_is_told_first(
    small_bundle_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run(small_bundle_dir, "--plot", tmp_path / "file")
    assert done.returncode == 1
    assert "cannot write" in done.stderr and done.stdout == ""
