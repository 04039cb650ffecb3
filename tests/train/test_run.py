"""Whole runs on a few textures: repeatable, resumable, and refused where they cannot work."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from sshr_deploy.errors import DatasetError, SshrDeployError, TrainingError, UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.profiles import load_profile
from sshr_deploy.train.demo_dataset import write_dataset
from sshr_deploy.train.history import EpochRow, StepNews
from sshr_deploy.train.job import TrainingJob
from sshr_deploy.train.recipe import Augmentation, Optimiser, Precision, Recipe, load_recipe
from sshr_deploy.train.run import TrainingResult, train
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME, save_run

STEPS_PER_EPOCH = 3
SGD = replace(load_recipe("smoke"), checkpoint_minutes=1e6)
ADAMW = replace(SGD, optimiser=Optimiser.ADAMW, learning_rate=1e-3, precision=Precision.BF16)


class Watcher:
    """A reporter that keeps what it hears, and interrupts after a step if it is told to."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.news: list[str] = []
        self.steps = 0
        self.interrupt_after = interrupt_after

    def run_started(self, description: str, epochs: int, steps_per_epoch: int, done: int) -> None:
        self.news.append(f"{epochs} epochs of {steps_per_epoch} steps, {done} done")

    def message(self, text: str) -> None:
        self.news.append(text)

    def warning(self, text: str) -> None:
        self.news.append(f"warning: {text}")

    def checking(self, done: int, total: int) -> None:
        assert 1 <= done <= total

    def step_done(self, news: StepNews) -> None:
        self.steps += 1
        assert news.patches_per_s > 0
        assert 0 <= news.data_wait_share <= 1
        if self.steps == self.interrupt_after:
            signal.raise_signal(signal.SIGINT)

    def validating(self, done: int, total: int) -> None:
        assert 1 <= done <= total

    def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
        self.news.append(f"epoch {row.epoch}")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("textures")
    write_dataset(folder, training=13, split=2)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _job(dataset: Path, out: Path, recipe: Recipe = SGD, **changes: object) -> TrainingJob:
    profile = load_profile("demo/profile.toml")
    job = TrainingJob(dataset, profile, recipe, out, width=1, workers=0)
    return replace(job, **changes)  # type: ignore[arg-type]


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
        runs[recipe.optimiser] = out, train(_job(dataset, out, recipe), Watcher())
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


@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=lambda r: r.optimiser.value)
def test_one_seed_gives_one_run(
    recipe: Recipe,
    dataset: Path,
    tmp_path: Path,
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    torch.rand(5)
    train(_job(dataset, tmp_path / "again", recipe), Watcher())
    _assert_same_end(undisturbed[recipe.optimiser][0], tmp_path / "again")


def test_another_seed_gives_another_run(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    train(_job(dataset, tmp_path / "other", replace(SGD, seed=1)), Watcher())
    assert _rows(tmp_path / "other") != _rows(undisturbed[Optimiser.SGD][0])


@pytest.mark.parametrize("recipe", [SGD, ADAMW], ids=lambda r: r.optimiser.value)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_interrupted_and_resumed_is_bitwise_undisturbed(
    step: int,
    recipe: Recipe,
    dataset: Path,
    tmp_path: Path,
    undisturbed: dict[Optimiser, tuple[Path, TrainingResult]],
) -> None:
    job = _job(dataset, tmp_path / "run", recipe)
    assert train(job, Watcher(interrupt_after=step)).interrupted
    watcher = Watcher()
    assert not train(replace(job, resume=True), watcher).interrupted
    assert watcher.steps == 2 * STEPS_PER_EPOCH - step
    _assert_same_end(undisturbed[recipe.optimiser][0], job.out)


def test_resuming_a_finished_run_changes_nothing(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    out, result = undisturbed[Optimiser.SGD]
    watcher = Watcher()
    kept = (LAST_NAME, BEST_NAME, "metrics.jsonl", "run.json")
    before = {name: (out / name).stat().st_mtime_ns for name in kept[::2]}
    tensors = _tensors(out / LAST_NAME)
    again = train(_job(dataset, out, resume=True), watcher)
    assert watcher.steps == 0
    assert again.rows == result.rows
    assert {name: (out / name).stat().st_mtime_ns for name in kept[::2]} == before
    assert all(torch.equal(t, tensors[name]) for name, t in _tensors(out / LAST_NAME).items())


def test_workers_do_not_change_a_run(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    train(_job(dataset, tmp_path / "run", workers=1), Watcher())
    _assert_same_end(undisturbed[Optimiser.SGD][0], tmp_path / "run")


def test_a_checkpoint_within_an_epoch_when_its_time_has_come(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def spy(*arguments: Any) -> None:
        steps.append(arguments[3].step)
        save_run(*arguments)

    monkeypatch.setattr("sshr_deploy.train.run_state.save_run", spy)
    recipe = replace(SGD, epochs=1, checkpoint_minutes=1e-9)
    train(_job(dataset, tmp_path / "run", recipe), Watcher())
    assert steps == [1, 2, 3, 0]  # before and after the validation as well


def test_a_loss_that_is_not_finite_stops_with_the_files_of_its_batch(
    dataset: Path, tmp_path: Path
) -> None:
    job = _job(dataset, tmp_path / "run", replace(SGD, learning_rate=1e6))
    with pytest.raises(TrainingError, match=r"is (nan|inf) on the batch .*\.png, .*\.png"):
        train(job, Watcher())


def test_without_val_the_best_epoch_is_that_of_least_loss(dataset: Path, tmp_path: Path) -> None:
    alone = tmp_path / "data"
    alone.mkdir()
    (alone / "training").symlink_to(dataset / "training")
    watcher = Watcher()
    result = train(_job(alone, tmp_path / "run"), watcher)
    assert [row.val for row in result.rows] == [None, None]
    assert any("no val split" in text for text in watcher.news)
    assert (tmp_path / "run" / BEST_NAME).exists()
    assert not (tmp_path / "run" / "val_overlays.png").exists()


def test_frozen_batch_norms_need_initial_weights(dataset: Path, tmp_path: Path) -> None:
    recipe = replace(load_recipe("paper"), epochs=1, batch=4)
    job = _job(dataset, tmp_path / "run", recipe)
    with pytest.raises(UsageError, match="--init, or choose --recipe scratch"):
        train(job, Watcher())
    torch.manual_seed(0)
    init = tmp_path / "init.safetensors"
    save_checkpoint(SSHR(ModelConfig(4, 1)), init)
    watcher = Watcher()
    train(replace(job, init=init), watcher)
    assert any(text.startswith("init: ") for text in watcher.news)
    start, end = load_checkpoint(init).state_dict(), load_checkpoint(job.out / LAST_NAME)
    assert torch.equal(end.conv1a.weight, start["conv1a.weight"])
    assert not torch.equal(end.fc8.weight, start["fc8.weight"])


def test_a_folder_with_something_in_it_is_not_taken(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run to go on with"):
        train(_job(dataset, tmp_path / "run", resume=True), Watcher())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty; choose another --out"):
        train(_job(dataset, tmp_path), Watcher())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_another_run_is_not_resumed(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    out, _ = undisturbed[Optimiser.SGD]
    with pytest.raises(UsageError, match="holds a run; add --resume"):
        train(_job(dataset, out), Watcher())
    smaller = tmp_path / "data"
    write_dataset(smaller, training=12, split=2)
    for change, named in (
        (_job(dataset, out, replace(SGD, learning_rate=0.02), resume=True), "recipe"),
        (_job(dataset, out, resume=True, width=2), "width"),
        (_job(smaller, out, resume=True), "training set"),
    ):
        with pytest.raises(TrainingError, match=f"another {named};"):
            train(change, Watcher())


def test_a_stop_while_validating_loses_no_step(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    class Impatient(Watcher):
        def validating(self, done: int, total: int) -> None:
            signal.raise_signal(signal.SIGINT)

    job = _job(dataset, tmp_path / "run")
    watcher = Impatient()
    assert train(job, watcher).interrupted
    assert watcher.steps == STEPS_PER_EPOCH
    assert not (job.out / "metrics.jsonl").exists()
    rest = Watcher()
    train(replace(job, resume=True), rest)
    assert rest.steps == STEPS_PER_EPOCH
    _assert_same_end(undisturbed[Optimiser.SGD][0], job.out)


def test_a_folder_that_another_process_trains_into_is_not_taken(
    dataset: Path, tmp_path: Path
) -> None:
    job = _job(dataset, tmp_path / "run")

    class Second(Watcher):
        def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
            with pytest.raises(UsageError, match="another process trains into"):
                train(replace(job, resume=True), Watcher())
            self.news.append("refused")

    watcher = Second()
    train(job, watcher)
    assert watcher.news.count("refused") == 2
    assert not list(job.out.glob(".*"))


def test_files_of_others_survive_a_refusal(dataset: Path, tmp_path: Path) -> None:
    theirs = tmp_path / ".movie.partial"
    theirs.touch()
    os.utime(theirs, (0, 0))
    with pytest.raises(UsageError, match="not empty"):
        train(_job(dataset, tmp_path), Watcher())
    assert theirs.exists()


def test_initial_weights_are_those_that_a_run_was_begun_with(dataset: Path, tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    save_checkpoint(SSHR(ModelConfig(4, 1)), init)
    job = _job(dataset, tmp_path / "run", init=init)
    train(job, Watcher(interrupt_after=1))
    (job.out / LAST_NAME).unlink()  # as if it was killed before its first checkpoint
    with pytest.raises(TrainingError, match="another init;"):
        train(replace(job, init=None, resume=True), Watcher())
    train(replace(job, resume=True), Watcher())


def test_other_versions_are_told_of(dataset: Path, tmp_path: Path) -> None:
    job = _job(dataset, tmp_path / "run")
    train(job, Watcher(interrupt_after=1))
    document = json.loads((job.out / "run.json").read_text())
    document["versions"]["torch"] = "1.0"
    (job.out / "run.json").write_text(json.dumps(document))
    watcher = Watcher()
    train(replace(job, resume=True), watcher)
    assert any(text.startswith("warning: ") and "versions" in text for text in watcher.news)


def test_bad_files_stop_before_anything_is_written(dataset: Path, tmp_path: Path) -> None:
    bad = tmp_path / "data"
    write_dataset(bad, training=4, split=1)
    (bad / "training" / "no labels.png").write_bytes(b"no image")
    (bad / "val" / "mask" / "00000.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        train(_job(bad, tmp_path / "run"), Watcher())
    assert len(caught.value.problems) == 3  # of both folders
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"init": Path("demo/profile.toml")}, "neither"),
        ({"recipe": replace(SGD, batch=14)}, "13 training patches are fewer"),
    ],
)
def test_a_run_that_cannot_begin_leaves_its_folder_free(
    changes: dict[str, Any], why: str, dataset: Path, tmp_path: Path
) -> None:
    job = _job(dataset, tmp_path / "run")
    with pytest.raises(SshrDeployError, match=why):
        train(replace(job, **changes), Watcher())
    assert list(job.out.iterdir()) == []


def test_augmentation_of_the_recipe_is_used(
    dataset: Path, tmp_path: Path, undisturbed: dict[Optimiser, tuple[Path, TrainingResult]]
) -> None:
    plain = replace(SGD, augmentation=Augmentation(flips=False))
    train(_job(dataset, tmp_path / "run", plain), Watcher())
    assert _rows(tmp_path / "run")[0].loss != _rows(undisturbed[Optimiser.SGD][0])[0].loss


def test_a_val_split_that_cannot_be_used_stops_before_the_first_step(
    dataset: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_dataset(data, training=4, split=1)
    shutil.rmtree(data / "val")
    (data / "val").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DatasetError, match="link to nothing"):
        train(_job(data, tmp_path / "run"), Watcher())
    (data / "val").unlink()
    shutil.copytree(dataset / "val", data / "val")
    for mask in (data / "val" / "mask").iterdir():
        Image.new("L", (224, 224), 4).save(mask)
    with pytest.raises(DatasetError, match="background"):
        train(_job(data, tmp_path / "run"), Watcher())


def test_a_run_does_not_go_into_its_dataset(dataset: Path) -> None:
    with pytest.raises(UsageError, match="lies in the dataset"):
        train(_job(dataset, dataset / "training" / "run"), Watcher())


def test_a_lost_best_checkpoint_costs_a_picture_and_not_the_run(
    dataset: Path, tmp_path: Path
) -> None:
    class Losing(Watcher):
        def epoch_finished(self, row: EpochRow, is_best: bool) -> None:
            if row.epoch == 2:
                (tmp_path / "run" / BEST_NAME).unlink()

    watcher = Losing()
    train(_job(dataset, tmp_path / "run"), watcher)
    assert any("no val_overlays.png" in text for text in watcher.news)
    assert (tmp_path / "run" / "curves.png").exists()
