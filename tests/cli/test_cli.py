"""The commands as a person runs them: real processes, real exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sshr_deploy import __version__
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.pipeline.run_lock import run_lock
from sshr_deploy.runtime.results.file_names import REPORT_NAME, SLIDE_RESULTS, SUMMARY_NAME
from tests.cli.command import LIMIT_S, SETTINGS, Done, run, run_here


def run_with_limit(*args: str | Path, limit_bytes: int) -> Done:
    """In a process of its own, which may write no file beyond this size."""
    code = (
        "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}));"
        "sys.argv[0] = 'sshr-deploy'; runpy.run_module('sshr_deploy', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=SETTINGS, timeout=LIMIT_S, check=False
    )


@pytest.fixture
def slides(tmp_path: Path, demo_slide: Path) -> Path:
    folder = tmp_path / "slides [1, 0]"
    folder.mkdir()
    shutil.copy(demo_slide, folder)
    return folder


def test_help_and_version() -> None:
    assert run("--version").stdout == f"sshr-deploy {__version__}\n"
    top = run("--help")
    assert top.returncode == 0
    for command in ("export", "infer", "benchmark"):
        assert command in top.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["export"], ["--profile", "--out", "--overwrite", "[required]", "luad"]),
        (
            ["infer"],
            [
                "um per level-0 pixel",
                "[default: (8 on a CPU, 32 on a GPU)]",
                "[default: auto]",
                "[default: (seamless, if the bundle has graphs for fields)]",
                "mm2",
            ],
        ),
        (
            ["benchmark", "latency"],
            ["in s", "[default: 10.0]", "[default: (1,4,8; fields 1,2,4)]", "ms", "patches/s"],
        ),
    ],
)
def test_every_help_says_units_and_defaults(command: list[str], words: list[str]) -> None:
    text = " ".join(run_here(*command, "--help").stdout.replace("│", " ").split())
    for word in words:
        assert word in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['sshr-deploy', 'infer', '--help']\n"
        "from sshr_deploy.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'onnxruntime', 'openslide', 'tifffile'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=SETTINGS, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_export_then_infer_then_infer_again(
    small_checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "out"
    export: list[str | Path] = [
        "export",
        small_checkpoint,
        "--profile",
        "wsss4luad",
        "--out",
        bundle,
    ]
    export += ["--hfrm", "depthwise", "--field", "560"]  # one graph instead of two, and small
    done = run_here(*export)
    assert done.returncode == 0, done.stderr
    assert "masks equal on" in done.stdout
    again = run_here(*export)
    assert (again.returncode, again.stdout) == (2, "")
    assert "--overwrite" in again.stderr

    done = run("infer", slides, "--model", bundle, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "1 done, 0 done earlier, 0 failed" in done.stdout
    assert str(out / "CMU-1-Small-Region.svs" / "mask.ome.tif") in done.stdout
    assert "tumour" in done.stdout
    assert "mm2 to compute" in done.stderr
    again = run_here("infer", slides, "--model", bundle, "--out", out)
    assert "0 done, 1 done earlier, 0 failed" in again.stdout


def test_json_is_the_run_document(small_bundle_dir: Path, slides: Path, tmp_path: Path) -> None:
    (slides / "text.svs").write_text("no slide")
    done = run_here(
        "infer", slides, "--model", small_bundle_dir, "--out", tmp_path / "out", "--json", "--quiet"
    )
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["counts"] == {"done": 1, "skipped": 0, "failed": 1}
    assert document == json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    (line,) = done.stderr.splitlines()
    assert "text.svs" in line


def test_quiet_says_nothing_when_all_is_well(
    small_bundle_dir: Path, slides: Path, tmp_path: Path
) -> None:
    done = run_here(
        "infer", slides, "--model", small_bundle_dir, "--out", tmp_path / "out", "--quiet"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--field", "900"],
            "--field 900 is no side that fields may have; choose 896 or 1008",
        ),
        (["--field", "0", "--fit-rule", "."], "--fit-rule is for label maps of fields, of which"),
    ],
)
def test_fields_that_cannot_be_made_are_refused(
    small_checkpoint: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    export = ["export", str(small_checkpoint), "--profile", "wsss4luad"]
    done = run_here(*export, "--out", tmp_path / "bundle", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_infer_needs_nothing_of_export_and_training(
    small_bundle_dir: Path, slides: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'safetensors'): sys.modules[name] = None\n"
        "from sshr_deploy.cli import main\n"
        "main()"
    )
    args = ["infer", str(slides), "--model", str(small_bundle_dir), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, encoding="utf-8", env=SETTINGS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "CMU-1-Small-Region.svs" / "mask.ome.tif").exists()


def test_a_console_without_the_characters_still_gets_its_table(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Прёба ½"
    folder.mkdir()
    shutil.copy(demo_slide, folder / "слайд.svs")
    command = [sys.executable, "-m", "sshr_deploy", "infer", str(folder)]
    done = subprocess.run(
        [*command, "--model", str(small_bundle_dir), "--out", str(tmp_path / "out")],
        capture_output=True, env={**SETTINGS, "PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"1 done, 0 done earlier, 0 failed" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["{slides}/none.svs", "--model", "{bundle}"], "No such file"),
        (["{slides}", "--model", "{slides}"], "is not a bundle"),
        (["{slides}", "--model", "{bundle}", "--force-mpp"], "give --mpp too"),
        (["{slides}", "--model", "{bundle}", "--mode", "magic"], "magic"),
        (["{slides}", "--model", "{bundle}", "--batch", "0"], "--batch"),
        (["{slides}", "--model", "{bundle}", "--mpp", "nan"], "--mpp nan"),
        (["{slides}", "--model", "{bundle}", "--engine", "onnx-cuda"], "no NVIDIA GPU"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_no_traceback(
    small_bundle_dir: Path, slides: Path, tmp_path: Path, args: list[str], named: str
) -> None:
    filled = [a.format(slides=slides, bundle=small_bundle_dir) for a in args]
    done = run_here("infer", *filled, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_changed_bundle_is_refused_naming_the_file(
    small_bundle_dir: Path, slides: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle_dir, tmp_path / "bundle"))
    with (bundle / "model.onnx.data").open("r+b") as file:
        file.write(b"\x01")
    done = run_here("infer", slides, "--model", bundle, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "model.onnx.data was changed" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes")
def test_a_full_disk_is_one_line_and_leaves_no_half_files(
    small_bundle_dir: Path, slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run_with_limit(
        "infer", slides, "--model", small_bundle_dir, "--out", out, limit_bytes=100_000
    )
    assert done.returncode == 1
    assert "free space or choose another" in done.stderr
    assert "Traceback" not in done.stderr
    left = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    computed = {name for name in left if name.endswith("/.unfinished")}  # for the next run
    assert {name.split("/")[0] for name in left - computed} == {
        "report.html", "run.json", "runs", "summary.csv",
    }  # fmt: skip
    assert len(computed) <= 1


def _interrupted_run(
    bundle: Path, slide: Path, folder: Path, *, slides: int, at: str, by: signal.Signals
) -> tuple[subprocess.Popen[str], str]:
    """Run over copies of a slide and send a signal when slide `at` is done; (process, stderr)."""
    (folder / "in").mkdir()
    for i in range(slides):
        shutil.copy(slide, folder / "in" / f"{i}.svs")
    command = [sys.executable, "-m", "sshr_deploy", "infer", str(folder / "in")]
    process = subprocess.Popen(
        [*command, "--model", str(bundle), "--out", str(folder / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=SETTINGS,
        text=True,
    )
    deadline = time.monotonic() + 60
    done = folder / "out" / at / "summary.json"
    while not done.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(by)
    _, stderr = process.communicate(timeout=60)
    return process, stderr


def test_of_two_runs_into_one_folder_the_second_is_told(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(3):
        shutil.copy(demo_slide, tmp_path / "in" / f"{i}.svs")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sshr_deploy", "infer", str(tmp_path / "in"), "--quiet"]
    command += ["--model", str(small_bundle_dir), "--out", str(out)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=SETTINGS)
    while not (out / "0.svs").exists() and first.poll() is None:
        time.sleep(0.01)
    with pytest.raises(UsageError, match=f"process {first.pid} on "), run_lock(out):
        pass
    _, stderr = first.communicate(timeout=60)
    assert (first.returncode, stderr) == (0, "")
    assert {p.name for p in out.iterdir()} == {
        "0.svs", "1.svs", "2.svs", "report.html", "run.json", "runs", "summary.csv",
    }  # fmt: skip
    names = {p.name for p in (out / "0.svs").iterdir()}
    assert names == {*SLIDE_RESULTS, SUMMARY_NAME, REPORT_NAME}


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_run_goes_on_where_it_was(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _interrupted_run(
        small_bundle_dir, demo_slide, tmp_path, slides=4, at="1.svs", by=signal.SIGKILL
    )
    finished = sorted(p.parent.name for p in out.rglob("summary.json"))
    assert {"0.svs", "1.svs"} <= set(finished)
    for name in finished:
        json.loads((out / name / "summary.json").read_text("utf-8"))
    done = run("infer", tmp_path / "in", "--model", small_bundle_dir, "--out", out)
    assert done.returncode == 0
    assert f"{4 - len(finished)} done, {len(finished)} done earlier, 0 failed" in done.stdout
    assert not list(out.rglob("*.partial"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line(
    small_bundle_dir: Path, slides: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "sshr_deploy", "infer", str(slides)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--model", str(small_bundle_dir), "--out", str(tmp_path), "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, env=SETTINGS, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_finished(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path, by: signal.Signals
) -> None:
    process, stderr = _interrupted_run(
        small_bundle_dir, demo_slide, tmp_path, slides=6, at="1.svs", by=by
    )
    assert process.returncode == 1
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    out = tmp_path / "out"
    document = json.loads((out / "run.json").read_text("utf-8"))
    assert document["interrupted"] is True
    assert document["counts"]["done"] >= 1
    assert not list(out.rglob("*.partial"))
