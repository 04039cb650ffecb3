"""Whole runs on a few textures: repeatable, resumable, and refused where they cannot work."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from sshr_deploy.errors import TrainingError, UsageError
from sshr_deploy.model import ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.train.demo_dataset import write_dataset
from sshr_deploy.train.history import EpochRow
from sshr_deploy.train.recipe import Augmentation, Optimiser, Recipe
from sshr_deploy.train.run import TrainingResult, train
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME, save_run
from tests.train.watching import ADAMW, SGD, STEPS_PER_EPOCH, Watcher, make_job

pytestmark = pytest.mark.usefixtures("one_thread")


def _tensors(path: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint: weights, optimiser, generators, sums (but for its two times)."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["resume/meter"] = tensors["resume/meter"][:-2]
    return tensors


def _assert_same_end(one: Path, other: Path) -> None:
    expected, found = _tensors(one / LAST_NAME), _tensors(other / LAST_NAME)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert _rows(other) == _rows(one)
    best, again = (load_checkpoint(p / BEST_NAME).state_dict() for p in (one, other))
    assert all(torch.equal(again[name], tensor) for name, tensor in best.items())


def _rows(out: Path) -> list[EpochRow]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [EpochRow.from_json(line).without_timings() for line in lines]


@pytest.fixture(scope="module")
def undisturbed(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[Optimiser, tuple[Path, TrainingResult]]:
    torch.set_num_threads(1)
    runs = {}
    for recipe in (SGD, ADAMW):
        out = tmp_path_factory.mktemp("runs") / recipe.optimiser
        runs[recipe.optimiser] = out, train(make_job(dataset, out, recipe), Watcher())
    return runs


def test_a_run_leaves_all_that_it_promises(
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    out, result = undisturbed[Optimiser.SGD]
    assert {p.name for p in out.iterdir()} == {
        "best.safetensors",
        "curves.png",
        "last.safetensors",
        "metrics.jsonl",
        "run.json",
        "tensorboard",
        "val_overlays.png",
    }
    assert [row.epoch for row in result.rows] == [1, 2]
    assert result.rows[-1].steps == 2 * STEPS_PER_EPOCH
    assert all(row.val is not None for row in result.rows)
    assert all(row.val and row.val.images == 2 and row.val.mean_iou_error for row in result.rows)
    assert not result.interrupted
    with safe_open(out / LAST_NAME, framework="pt") as file:
        header = file.metadata()
    assert json.loads(header["recipe"])["name"] == "smoke"
    assert json.loads(header["profile"])["name"] == "demo"
    assert json.loads(header["versions"])["torch"] == torch.__version__
    assert load_checkpoint(out / LAST_NAME).config == ModelConfig(4, 1)


def test_the_rate_and_the_loss_of_a_row_are_those_of_its_epoch(
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    for row in undisturbed[Optimiser.SGD][1].rows:
        last_step = row.steps - 1
        assert row.learning_rate == pytest.approx(0.01 * (1 - last_step / 6) ** 0.9)
        weighted = (
            0.1 * row.loss_56 + 0.15 * row.loss_28_1 + 0.25 * row.loss_28_2 + 0.5 * row.loss_deep
        )
        assert row.loss == pytest.approx(weighted, rel=1e-6)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=lambda r: r.optimiser.value)
def test_one_seed_gives_one_run(
    recipe: Recipe,
    dataset: Path,
    tmp_path: Path,
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    torch.rand(5)
    train(make_job(dataset, tmp_path / "again", recipe), Watcher())
    _assert_same_end(undisturbed[recipe.optimiser][0], tmp_path / "again")


@pytest.mark.usefixtures("without_pictures")
def test_another_seed_gives_another_run(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    train(make_job(dataset, tmp_path / "other", replace(SGD, seed=1)), Watcher())
    assert _rows(tmp_path / "other") != _rows(undisturbed[Optimiser.SGD][0])


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=lambda r: r.optimiser.value)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_interrupted_and_resumed_is_bitwise_undisturbed(
    step: int,
    recipe: Recipe,
    dataset: Path,
    tmp_path: Path,
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    job = make_job(dataset, tmp_path / "run", recipe)
    assert train(job, Watcher(interrupt_after=step)).interrupted
    watcher = Watcher()
    assert not train(replace(job, resume=True), watcher).interrupted
    assert watcher.steps == 2 * STEPS_PER_EPOCH - step
    _assert_same_end(undisturbed[recipe.optimiser][0], job.out)


@pytest.mark.usefixtures("without_pictures")
def test_resuming_a_finished_run_changes_nothing(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    out, result = undisturbed[Optimiser.SGD]
    watcher = Watcher()
    kept = (LAST_NAME, BEST_NAME, "metrics.jsonl", "run.json")
    before = {name: (out / name).stat().st_mtime_ns for name in kept[::2]}
    tensors = _tensors(out / LAST_NAME)
    again = train(make_job(dataset, out, resume=True), watcher)
    assert watcher.steps == 0
    assert again.rows == result.rows
    assert {name: (out / name).stat().st_mtime_ns for name in kept[::2]} == before
    assert all(torch.equal(t, tensors[name]) for name, t in _tensors(out / LAST_NAME).items())


@pytest.mark.usefixtures("without_pictures")
def test_workers_do_not_change_a_run(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    train(make_job(dataset, tmp_path / "run", workers=1), Watcher())
    _assert_same_end(undisturbed[Optimiser.SGD][0], tmp_path / "run")


@pytest.mark.usefixtures("without_pictures")
def test_a_checkpoint_within_an_epoch_when_its_time_has_come(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def spy(*arguments: Any) -> None:
        steps.append(arguments[3].step)
        save_run(*arguments)

    monkeypatch.setattr("sshr_deploy.train.run_state.save_run", spy)
    recipe = replace(SGD, epochs=1, checkpoint_minutes=1e-9)
    train(make_job(dataset, tmp_path / "run", recipe), Watcher())
    assert steps == [1, 2, 3, 0]  # before and after the validation as well


@pytest.mark.usefixtures("without_pictures")
def test_a_loss_that_is_not_finite_stops_with_the_files_of_its_batch(
    dataset: Path, tmp_path: Path
) -> None:
    job = make_job(dataset, tmp_path / "run", replace(SGD, learning_rate=1e6))
    with pytest.raises(TrainingError, match=r"is (nan|inf) on the batch .*\.png, .*\.png"):
        train(job, Watcher())


def test_without_val_the_best_epoch_is_that_of_least_loss(dataset: Path, tmp_path: Path) -> None:
    alone = tmp_path / "data"
    alone.mkdir()
    (alone / "training").symlink_to(dataset / "training")
    watcher = Watcher()
    result = train(make_job(alone, tmp_path / "run"), watcher)
    assert [row.val for row in result.rows] == [None, None]
    assert any("no val split" in text for text in watcher.news)
    assert (tmp_path / "run" / BEST_NAME).exists()
    assert not (tmp_path / "run" / "val_overlays.png").exists()


@pytest.mark.usefixtures("without_pictures")
def test_another_run_is_not_resumed(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    out, _ = undisturbed[Optimiser.SGD]
    with pytest.raises(UsageError, match="holds a run; add `resume`"):
        train(make_job(dataset, out), Watcher())
    smaller = tmp_path / "data"
    write_dataset(smaller, training=12, split=2)
    for change, named in (
        (make_job(dataset, out, replace(SGD, learning_rate=0.02), resume=True), "recipe"),
        (make_job(dataset, out, resume=True, width=2), "width"),
        (make_job(smaller, out, resume=True), "training set"),
    ):
        with pytest.raises(TrainingError, match=f"another {named};"):
            train(change, Watcher())


@pytest.mark.usefixtures("without_pictures")
def test_a_stop_while_validating_loses_no_step(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    class Impatient(Watcher):
        def validating(self, done: int, total: int) -> None:
            signal.raise_signal(signal.SIGINT)

    job = make_job(dataset, tmp_path / "run")
    watcher = Impatient()
    assert train(job, watcher).interrupted
    assert watcher.steps == STEPS_PER_EPOCH
    assert not (job.out / "metrics.jsonl").exists()
    rest = Watcher()
    train(replace(job, resume=True), rest)
    assert rest.steps == STEPS_PER_EPOCH
    _assert_same_end(undisturbed[Optimiser.SGD][0], job.out)


@pytest.mark.usefixtures("without_pictures")
def test_augmentation_of_the_recipe_is_used(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    plain = replace(SGD, augmentation=Augmentation(flips=False))
    train(make_job(dataset, tmp_path / "run", plain), Watcher())
    assert _rows(tmp_path / "run")[0].loss != _rows(undisturbed[Optimiser.SGD][0])[0].loss


def test_a_lost_best_checkpoint_costs_a_picture_and_not_the_run(
    dataset: Path, tmp_path: Path
) -> None:
    class Losing(Watcher):
        def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
            if row.epoch == 2:
                (tmp_path / "run" / BEST_NAME).unlink()

    watcher = Losing()
    train(make_job(dataset, tmp_path / "run"), watcher)
    assert any("no val_overlays.png" in text for text in watcher.news)
    assert (tmp_path / "run" / "curves.png").exists()
