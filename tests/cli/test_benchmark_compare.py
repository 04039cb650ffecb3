"""`sshr-deploy benchmark compare` as a person, or CI, runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sshr_deploy.atomic import write_json
from tests.benchmarks.report.documents import BUSY, make_document, make_row
from tests.cli.command import Done, run_here

FAST, SLOW = [10.0, 10.1, 10.2, 10.05, 9.95, 10.1], [13.0, 13.1, 13.2, 13.05, 12.95, 13.1]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    a = make_document([make_row("fp32, batch 1", FAST), make_row("int8, batch 1", FAST)])
    b = make_document([make_row("fp32, batch 1", SLOW), make_row("int8, batch 1", FAST)])
    for name, document in (("a", a), ("b", b)):
        write_json(tmp_path / f"{name}.json", document.model_dump(mode="json"))
    return tmp_path / "a.json", tmp_path / "b.json"


def run(*args: str | Path) -> Done:
    return run_here("benchmark", "compare", *args)


def test_each_row_has_its_verdict_beside_the_agreement(files: tuple[Path, Path]) -> None:
    done = run(*files)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"A: {files[0]}, latency, 2026-11-28T14:00:00Z, sshr-deploy 1.0 (01")
    assert lines[0].endswith("A processor, 2 cores, load 0.1 to 1.2, other work 1%")
    assert lines[2].split() == ["row", "A", "B", "x", "A", "95", "%", "verdict", "agreement"]
    fp32, int8 = (line.split() for line in lines[3:5])
    assert fp32[3:8] == ["10.07", "ms", "13.07", "ms", "0.771"]
    assert fp32[-2:] == ["slower", "100.000%"]
    assert int8[-3:] == ["-", "tie", "100.000%"]
    assert lines[5] == "int8, batch 1: A and B overlap: 10 to 10.1 ms and 10 to 10.1 ms"


def test_names_of_rows_are_no_markup(tmp_path: Path) -> None:
    document = make_document([make_row("conv[bold], batch 1", FAST)])
    write_json(tmp_path / "a.json", document.model_dump(mode="json"))
    assert "\nconv[bold], batch 1 " in run(tmp_path / "a.json", tmp_path / "a.json").stdout


def test_ci_fails_over_a_limit_alone(files: tuple[Path, Path]) -> None:
    done = run(*files, "--fail-over", "10%")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("fp32, batch 1: slower by at least 2")
    assert second == "1 row failed: over 10%, or no longer measured"
    assert run(*files, "--fail-over", "35").returncode == 0
    assert run(*reversed(files), "--fail-over", "0").returncode == 0


def test_a_busy_machine_fails_nothing_and_says_so(files: tuple[Path, Path]) -> None:
    document = make_document([make_row("fp32, batch 1", SLOW)], load=BUSY)
    write_json(files[1], document.model_dump(mode="json"))
    content = json.loads(files[0].read_text("utf-8"))
    del content["rows"][1]
    files[0].write_text(json.dumps(content))
    done = run(*files, "--fail-over", "10%")
    assert done.returncode == 0
    assert "fp32, batch 1: B: other work took 45% of the cores' time" in done.stdout


def test_verdicts_are_written_as_json_and_markdown(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    outputs = tmp_path / "out" / "c.json", tmp_path / "out" / "c.md"
    done = run(*files, "--json", outputs[0], "--markdown", outputs[1], "--fail-over", "10%")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == [str(path) for path in outputs]
    verdicts = json.loads(outputs[0].read_text("utf-8"))
    assert [row["verdict"] for row in verdicts["rows"]] == ["slower", "tie"]
    assert verdicts["rows"][0]["speed"] == pytest.approx(10.075 / 13.075)
    text = outputs[1].read_text("utf-8")
    assert f"- A: {files[0]}" in text
    assert "| fp32, batch 1 | 10.07 ms | 13.07 ms | 0.771 |" in text


@pytest.mark.parametrize("wrong", ["much", "-3%", "nan", "inf", ""])
def test_a_limit_that_is_no_percentage(files: tuple[Path, Path], wrong: str) -> None:
    done = run(*files, f"--fail-over={wrong}")
    assert done.returncode == 2
    assert done.stderr == (
        f"sshr-deploy: error: --fail-over {wrong!r}: give a percentage such as 10%\n"
    )


def test_a_file_of_another_form(files: tuple[Path, Path], tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("{}")
    done = run(files[0], old)
    assert done.returncode == 2
    assert "old.json is no benchmark of form 1" in done.stderr
