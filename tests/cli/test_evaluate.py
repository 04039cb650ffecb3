"""`sshr-deploy evaluate` as a person runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli import app
from sshr_deploy.errors import UsageError
from sshr_deploy.profiles import Profile
from tests.cli.command import LIMIT_S, SETTINGS, Done, run_here

WITHOUT_TORCH = (
    "import sys\n"
    "for name in ('torch', 'onnx', 'onnxscript', 'safetensors'): sys.modules[name] = None\n"
    "from sshr_deploy.cli import main\n"
    "main()"
)


def run(*args: str | Path, torch: bool = True) -> Done:
    """`sshr-deploy evaluate`; in a process of its own where there is to be no torch."""
    if torch:
        return run_here("evaluate", *args)
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "evaluate", *map(str, args)],
        capture_output=True, encoding="utf-8", env=SETTINGS, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def figures(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, golden_dir: Path) -> Path:
    """Crops of the golden patches, two of them side by side as a large one."""
    folder = tmp_path_factory.mktemp("data") / "val"
    for part in ("img", "mask"):
        (folder / part).mkdir(parents=True)
    with np.load(golden_dir / "official_inference.npz") as golden:
        patches = [golden[f"{i}/original_rgb"] for i in range(4)]
    images = {"a": patches[0], "b": patches[1][:150], "large": np.concatenate(patches[2:4], 1)}
    for name, rgb in images.items():
        Image.fromarray(rgb).save(folder / "img" / f"{name}.png")
        Image.fromarray(rgb[..., 1] // 64).save(folder / "mask" / f"{name}.png")
    return folder


def test_checkpoint_and_bundle_agree(
    split: Path, own_checkpoint: Path, small_checkpoint: Path, small_bundle_dir: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    done = run(
        split, "--model", small_bundle_dir, "--json", out / "b.json", "--picture", out / "b.png",
        torch=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("tumour", "mean IoU", "exact match", str(out / "b.json"), str(out / "b.png")):
        assert word in done.stdout
    assert "3/3 images" in done.stderr
    with Image.open(out / "b.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
    done = run(split, "--model", own_checkpoint, "--json", out / "c.json", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(
        split, "--model", small_checkpoint, "--profile", "wsss4luad", "--batch", "1",
        "--json", out / "d.json", "--quiet",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    bundle, own, given = (figures(out / f"{n}.json") for n in "bcd")
    assert own["confusion"] == given["confusion"]
    difference = np.subtract(own["confusion"]["pixels"], bundle["confusion"]["pixels"])
    assert np.abs(difference).sum() <= 1e-3 * own["split"]["scored_pixels"]
    assert own["scores"]["label_accuracy"] == bundle["scores"]["label_accuracy"]
    assert bundle["engine"]["engine"] == "onnx-cpu"
    assert own["engine"]["engine"].startswith("pytorch-")
    assert (bundle["model"]["kind"], own["model"]["kind"]) == ("bundle", "checkpoint")
    assert bundle["model"]["parameters"] == own["model"]["parameters"]


def test_large_images_whole_are_other_figures(
    split: Path, small_bundle_dir: Path, tmp_path: Path
) -> None:
    for large in ("tiles", "whole"):
        done = run(
            split, "--model", small_bundle_dir, "--large", large, "--json", tmp_path / large,
            "--quiet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    tiles, whole = (figures(tmp_path / large) for large in ("tiles", "whole"))
    assert (tiles["settings"]["large"], whole["settings"]["large"]) == ("tiles", "whole")
    assert tiles["confusion"] != whole["confusion"]
    assert tiles["split"] == whole["split"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["{split}", "--model", "{bundle}", "--profile", "luad"], "leave --profile out"),
        (["{split}", "--model", "{checkpoint}"], "give --profile"),
        (["{split}", "--model", "{checkpoint}", "--profile", "luad"], "has 4; give the --profile"),
        (["{split}", "--model", "{own}", "--engine", "onnx-cpu"], "are for bundles"),
        (["{split}", "--model", "{split}/none"], "does not exist"),
        (["{split}", "--model", "{split}"], "is not a bundle"),
        (["{split}", "--model", "{bundle}", "--picture", "x.jpg"], "is a PNG"),
        (["{split}/..", "--model", "{bundle}"], "val"),
        (["{split}/img", "--model", "{bundle}"], "no folders img and mask"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    split: Path, small_bundle_dir: Path, small_checkpoint: Path, own_checkpoint: Path,
    args: list[str], named: str,
) -> None:  # fmt: skip
    places = {
        "split": split, "bundle": small_bundle_dir, "checkpoint": small_checkpoint,
        "own": own_checkpoint,
    }  # fmt: skip
    done = run(*(a.format(**places) for a in args), "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert named in line


def test_a_bundle_takes_its_own_profile_named_again(split: Path, small_bundle_dir: Path) -> None:
    done = run(split, "--model", small_bundle_dir, "--profile", "wsss4luad", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


def test_other_classes_than_the_model_s_are_scored_with_relabel_alone(
    split: Path, own_checkpoint: Path, small_bundle_dir: Path, profile: Profile, tmp_path: Path
) -> None:
    """The names of a profile that a checkpoint does not carry; label maps of two classes."""
    renamed = tmp_path / "renamed.toml"
    classes = "".join(f'[[classes]]\nname = "{n}"\ncolor = "#00000{n}"\n' for n in range(3))
    renamed.write_text(f'name = "x"\ntitle = "X"\nmpp_um = 1\ngate_threshold = 0.2\n{classes}')
    two = tmp_path / "data" / "val"
    for part in ("img", "mask"):
        shutil.copytree(split / part, two / part)
    (tmp_path / "data" / "training").mkdir()
    (tmp_path / "data" / "training" / "x[1 0].png").touch()
    for arguments, words in (
        ([split, "--model", own_checkpoint, "--profile", renamed], "was trained on tumour, stroma"),
        ([two, "--model", small_bundle_dir], "x[1 0].png has 2 labels"),
    ):
        command = ["evaluate", *map(str, arguments), "--quiet", "--json", str(tmp_path / "out")]
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, UsageError)
        assert words in str(done.exception) and "`relabel`" in str(done.exception)
        assert not (tmp_path / "out").exists()
        done = CliRunner().invoke(app, [*command, "--relabel"])
        assert done.exit_code == 0, done.exception
        model = figures(tmp_path / "out")["model"]
        names = [tissue.name for tissue in profile.classes]
        expected = {"profile": "wsss4luad", "classes": names} if "trained" in words else None
        assert model["relabelled_from"] == expected
        (tmp_path / "out").unlink()


def test_a_checkpoint_without_torch_names_the_extra(split: Path, own_checkpoint: Path) -> None:
    done = run(split, "--model", own_checkpoint, torch=False)
    assert done.returncode == 2
    assert "pip install 'sshr-deploy[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_problem_of_a_split_has_its_line(small_bundle_dir: Path, tmp_path: Path) -> None:
    for part in ("img", "mask"):
        (tmp_path / part).mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (32, 32)).save(tmp_path / "img" / f"{name}.png")
    Image.new("L", (32, 32), 9).save(tmp_path / "mask" / "c.png")
    done = run(tmp_path, "--model", small_bundle_dir, "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    *problems, last = done.stderr.splitlines()
    assert len(problems) == 3
    for name, line in zip("abc", problems, strict=True):
        assert f"{name}.png" in line
    assert last.startswith("sshr-deploy: error:") and "3 problems" in last


def test_an_unwritable_result_is_told_before_the_work(
    split: Path, small_bundle_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run(split, "--model", small_bundle_dir, "--json", tmp_path / "file" / "x.json")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot write" in line


def test_the_help_says_units_and_defaults() -> None:
    text = " ".join(run("--help").stdout.replace("│", " ").split())
    batch = "[default: (8 on a CPU, 32 on a GPU)]"
    for word in ("SPLIT_DIR", "336 px", "224 px", "[default: tiles]", batch, "above 0.5"):
        assert word in text


def test_an_output_never_replaces_another_or_what_is_evaluated(
    small_bundle_dir: Path, split: Path, tmp_path: Path
) -> None:
    both = str(tmp_path / "x.png")
    model, images = str(small_bundle_dir), sorted((split / "img").iterdir())
    for arguments in (
        ["--json", both, "--picture", both],
        ["--json", str(small_bundle_dir / "manifest.json")],
        ["--picture", str(images[0])],
    ):
        done = run(split, "--model", model, *arguments)
        assert done.returncode == 2, done.stderr
        assert "give two files" in done.stderr or "choose another place" in done.stderr
    assert load_bundle(small_bundle_dir)
