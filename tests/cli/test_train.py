"""`sshr-deploy train` as a person runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME
from tests.cli.command import run_here
from tests.train.dataset_of_textures import (
    DEMO_PROFILE,
    position,
    rows,
    train_here,
    write_textures,
    write_tiny_recipe,
)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_textures(tmp_path_factory.mktemp("data") / "textures")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_tiny_recipe(tmp_path / "tiny.toml", epochs=2)


class Here:
    """The command in this process, which has torch loaded already: (exit code, stdout, stderr)."""

    def __call__(self, *args: str | Path) -> tuple[int, str, str]:
        done = run_here(*args)
        return done.returncode, done.stdout, done.stderr

    def train(self, dataset: Path, recipe: Path | str, out: Path, *more: str | Path) -> str:
        """Train and be refused: the one line, or several, on stderr."""
        code, stdout, stderr = self(
            *("train", dataset, "--recipe", recipe, "--out", out, "--profile", DEMO_PROFILE),
            *("--width", "1", "--workers", "0", *more),
        )
        assert (code, stdout) == (2, ""), stderr
        assert "Traceback" not in stderr
        return stderr


@pytest.fixture
def here() -> Here:
    return Here()


def test_train_evaluate_export_evaluate(
    textures: Path, recipe: Path, tmp_path: Path, here: Here
) -> None:
    out, bundle = tmp_path / "run", tmp_path / "bundle"
    done = run_here(
        "train", textures, "--profile", DEMO_PROFILE, "--recipe", recipe, "--out", out,
        "--width", "2", "--workers", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in ("12 training patches, 2 val images", "epoch 2/2: loss", "patches/s", "data wait"):
        assert word in done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {
        *(LAST_NAME, BEST_NAME, "metrics.jsonl", "run.json", "tensorboard"),
        *("curves.png", "val_overlays.png"),
    }
    for word in ("best", "last", "mIoU", "Dice", *(f"{out / name}\n" for name in names)):
        assert word in done.stdout

    code, _, stderr = here(
        "evaluate", textures / "val", "--model", out / BEST_NAME, "--json", tmp_path / "own.json"
    )
    assert code == 0, stderr
    code, _, stderr = here(
        "export", out / BEST_NAME, "--profile", DEMO_PROFILE, "--out", bundle, "--hfrm",
        "depthwise", "--field", "0",
    )  # fmt: skip
    assert code == 0, stderr
    code, _, stderr = here(
        "evaluate", textures / "val", "--model", bundle, "--json", tmp_path / "bundle.json"
    )
    assert code == 0, stderr
    own, exported = (
        json.loads((tmp_path / f"{name}.json").read_text("utf-8"))["scores"]["mean_iou"]
        for name in ("own", "bundle")
    )
    best = max(row.val.mean_iou for row in rows(out) if row.val is not None)
    assert own == pytest.approx(best, abs=1e-3)
    assert exported == pytest.approx(own, abs=1e-3)


def test_help_says_units_and_defaults() -> None:
    text = " ".join(run_here("train", "--help").stdout.replace("│", " ").split())
    for word in (
        *("DATASET", "x[1 0 1].png", "--profile", "--recipe", "paper", "fast", "scratch", "smoke"),
        *("--width", "Channels", "[default: 64]", "--init", "[default: (random)]", "--resume"),
        *("--workers", "[default: (by device)]", "[required]", "torchrun"),
    ):
        assert word in text
    assert " train " in run_here("--help").stdout


def test_bad_files_are_all_listed_and_the_folder_can_be_used_again(
    textures: Path, recipe: Path, tmp_path: Path, here: Here
) -> None:
    dataset, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(textures, dataset)
    bad = ["broken[1 0 0 0].png", "no labels.png", "three[1 0 1].png"]
    for name in bad[1:]:
        shutil.copy(next((textures / "training").iterdir()), dataset / "training" / name)
    (dataset / "training" / bad[0]).write_bytes(b"no image")
    *problems, summary = here.train(dataset, recipe, out).splitlines()
    assert len(problems) == 3
    for name, line in zip(bad, sorted(problems, key=_name_of(bad)), strict=True):
        assert name in line
    assert "3 of 15 training files" in summary

    for name in bad:
        (dataset / "training" / name).unlink()
    for mask in (dataset / "val" / "mask").iterdir():
        mask.write_bytes(b"no image")
    assert "00001.png" in here.train(dataset, recipe, out)

    code, _, stderr = here(
        *("train", textures, "--recipe", recipe, "--out", out, "--profile", DEMO_PROFILE),
        *("--width", "1", "--workers", "0", "--quiet"),
    )
    assert (code, stderr) == (0, "")
    assert position(out) == (2, 0)


@pytest.mark.parametrize(
    ("changes", "more", "named"),
    [
        ({"batch": 13}, [], "12 training patches are fewer than the recipe's batch of 13"),
        ({"learning_rate": 0}, [], "learning_rate"),
        ({"batch_norm": "frozen"}, [], "give trained ones with --init"),
        ({}, ["--init", "{tmp}/none.safetensors"], "none.safetensors"),
        ({}, ["--init", "{tmp}/width2.safetensors"], "--width 2"),
        ({}, ["--resume"], "holds no run to go on with"),
    ],
)
def test_what_is_refused_leaves_nothing_in_the_way(
    textures: Path, tmp_path: Path, here: Here, changes: dict[str, Any], more: list[str], named: str
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "own.toml", **changes), tmp_path / "run"
    save_checkpoint(SSHR(ModelConfig(4, width=2)), tmp_path / "width2.safetensors")
    more = [word.format(tmp=tmp_path) for word in more]
    line = here.train(textures, recipe, out, *more).splitlines()[-1]
    assert line.startswith("sshr-deploy: error: ")
    assert named in line
    assert not out.exists() or list(out.iterdir()) == []


def test_wrong_names_are_one_line(textures: Path, recipe: Path, tmp_path: Path, here: Here) -> None:
    out = tmp_path / "run"
    for dataset, named_recipe, word in (
        (tmp_path / "nowhere", recipe, "nowhere"),
        (textures / "val", recipe, "training"),
        (textures, "papre", "paper"),
        (textures, tmp_path / "none.toml", "none.toml"),
        (textures, "paper", "--init"),
    ):
        (line,) = here.train(dataset, named_recipe, out).splitlines()
        assert word in line
    assert not out.exists() or list(out.iterdir()) == []


def test_every_mistake_in_a_recipe_or_a_profile_has_its_line(
    textures: Path, recipe: Path, tmp_path: Path, here: Here
) -> None:
    bad = write_tiny_recipe(tmp_path / "bad.toml", epochs=0, momentum=2, lr=0.1)
    *problems, summary = here.train(textures, bad, tmp_path / "run").splitlines()
    assert [line.split(": ")[1] for line in problems] == ["epochs", "momentum", "lr"]
    assert all(line.startswith(f"recipe {bad}: ") for line in problems)
    assert f"error: recipe {bad} has 3 problems, the first: epochs: " in summary

    own = tmp_path / "own.toml"
    own.write_text('name = "own"\ntitle = "Own"\nmpp = 1\nclasses = []\n', "utf-8")
    stderr = here.train(textures, recipe, tmp_path / "run", "--profile", own)
    for field in ("mpp_um", "gate_threshold", "classes", "mpp"):
        assert f"profile {own}: {field}: " in stderr
    assert "has 4 problems" in stderr.splitlines()[-1]


def test_results_of_others_are_never_touched(
    textures: Path, recipe: Path, tmp_path: Path, here: Here
) -> None:
    out = tmp_path / "full"
    out.mkdir()
    (out / "thesis.txt").write_text("mine", "utf-8")
    assert "is not empty; choose another --out" in here.train(textures, recipe, out)
    assert "no run to go on with" in here.train(textures, recipe, out, "--resume")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    file = tmp_path / "file"
    file.write_text("mine", "utf-8")
    here.train(textures, recipe, file)
    assert file.read_text("utf-8") == "mine"


def test_a_run_is_resumed_only_as_it_was_begun(textures: Path, tmp_path: Path, here: Here) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "tiny.toml", epochs=1), tmp_path / "run"
    train_here(textures, recipe, out)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert "holds a run; add --resume" in here.train(textures, recipe, out)
    other = write_tiny_recipe(tmp_path / "other.toml", epochs=2)
    assert "begun with another recipe;" in here.train(textures, other, out, "--resume")
    assert "begun with another width;" in here.train(
        textures, recipe, out, "--resume", "--width", "2"
    )
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_loss_that_is_not_finite_names_the_files_and_keeps_the_last_checkpoint(
    textures: Path, tmp_path: Path, here: Here
) -> None:
    recipe = write_tiny_recipe(tmp_path / "wild.toml", learning_rate=1e6, checkpoint_minutes=1e-6)
    out = tmp_path / "run"
    *_, line = here.train(textures, recipe, out).splitlines()
    names = {path.name for path in (textures / "training").iterdir()}
    assert sum(name in line for name in names) == 4, line
    assert "learning_rate" in line
    weights = load_checkpoint(out / LAST_NAME).state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert position(out) > (0, 0)


def _name_of(names: list[str]) -> Callable[[str], int]:
    """Which of `names` a line tells of, for sorting."""
    return lambda line: next(i for i, name in enumerate(names) if name in line)
