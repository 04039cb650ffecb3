"""Runs that cannot work are refused before anything is lost."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sshr_deploy.errors import DatasetError, SshrDeployError, TrainingError, UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.train.demo_dataset import write_dataset
from sshr_deploy.train.history import EpochRow, StepNews
from sshr_deploy.train.job import run_threads
from sshr_deploy.train.recipe import HfrmTraining, load_recipe
from sshr_deploy.train.run import train
from sshr_deploy.train.run_checkpoint import LAST_NAME
from tests.train.watching import SGD, Watcher, make_job

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.usefixtures("without_pictures")
def test_frozen_batch_norms_need_initial_weights(dataset: Path, tmp_path: Path) -> None:
    recipe = replace(load_recipe("paper"), epochs=1, batch=4)
    job = make_job(dataset, tmp_path / "run", recipe)
    with pytest.raises(UsageError, match="`init`, or choose `recipe` scratch"):
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
        train(make_job(dataset, tmp_path / "run", resume=True), Watcher())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty; choose another `out`"):
        train(make_job(dataset, tmp_path), Watcher())
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("without_pictures")
def test_a_folder_that_another_process_trains_into_is_not_taken(
    dataset: Path, tmp_path: Path
) -> None:
    job = make_job(dataset, tmp_path / "run")

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
        train(make_job(dataset, tmp_path), Watcher())
    assert theirs.exists()


@pytest.mark.usefixtures("without_pictures")
def test_initial_weights_are_those_that_a_run_was_begun_with(dataset: Path, tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    save_checkpoint(SSHR(ModelConfig(4, 1)), init)
    job = make_job(dataset, tmp_path / "run", init=init)
    train(job, Watcher(interrupt_after=1))
    (job.out / LAST_NAME).unlink()  # as if it was killed before its first checkpoint
    with pytest.raises(TrainingError, match="another init;"):
        train(replace(job, init=None, resume=True), Watcher())
    train(replace(job, resume=True), Watcher())


@pytest.mark.usefixtures("without_pictures")
def test_other_versions_are_told_of(dataset: Path, tmp_path: Path) -> None:
    job = make_job(dataset, tmp_path / "run")
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
        train(make_job(bad, tmp_path / "run"), Watcher())
    assert len(caught.value.problems) == 3  # of both folders
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"init": Path("demo/profile.toml")}, "neither"),
        ({"recipe": replace(SGD, batch=14)}, "13 training patches are fewer"),
        pytest.param(
            {"recipe": replace(SGD, hfrm=HfrmTraining.FUSED)},
            "needs an NVIDIA GPU and Triton",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel works here"),
        ),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(
    changes: dict[str, Any], why: str, dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Tests of the kernels may have run here, and have switched Triton's interpreter on.
    monkeypatch.setattr("sshr_deploy.train.network.has_triton_package", lambda: False)
    job = make_job(dataset, tmp_path / "new" / "run")
    with pytest.raises(SshrDeployError, match=why):
        train(replace(job, **changes), Watcher())
    assert list(tmp_path.iterdir()) == []
    job.out.mkdir(parents=True)  # the user's own stays
    with pytest.raises(SshrDeployError, match=why):
        train(replace(job, **changes), Watcher())
    assert list(job.out.iterdir()) == []


class WithoutCheckpoint(Watcher):
    """Stops a run before anything that it could go on from is written."""

    def step_done(self, news: StepNews) -> None:
        raise TrainingError("the loss is nan")


def test_a_run_that_stopped_before_its_first_checkpoint_can_be_begun_anew(
    dataset: Path, tmp_path: Path
) -> None:
    wild = make_job(dataset, tmp_path / "run", replace(SGD, learning_rate=1e6))
    with pytest.raises(TrainingError, match="is nan"):
        train(wild, WithoutCheckpoint())
    assert [path.name for path in wild.out.iterdir()] == ["run.json"]
    tame = make_job(dataset, wild.out)
    with pytest.raises(TrainingError, match=r"another recipe; .*leave out `resume` to begin it"):
        train(replace(tame, resume=True), Watcher())
    # As after an epoch whose last step overflowed, where there is no val split.
    (wild.out / "metrics.jsonl").write_text("an old line\n")
    (wild.out / "tensorboard").mkdir()
    (wild.out / "tensorboard" / "events.of.the.old.run").touch()
    train(tame, Watcher())
    assert json.loads((tame.out / "run.json").read_text())["recipe"]["learning_rate"] == 0.01
    assert "old" not in (tame.out / "metrics.jsonl").read_text()
    assert "old" not in "".join(path.name for path in (tame.out / "tensorboard").iterdir())
    with pytest.raises(UsageError, match="holds a run; add `resume`"):
        train(tame, Watcher())


@pytest.mark.parametrize("name", ["notes.txt", LAST_NAME, "best.safetensors"])
def test_only_a_run_without_anything_to_lose_is_begun_anew(
    name: str, dataset: Path, tmp_path: Path
) -> None:
    job = make_job(dataset, tmp_path / "run")
    with pytest.raises(TrainingError):
        train(job, WithoutCheckpoint())
    (job.out / name).write_text("mine")
    with pytest.raises(UsageError, match="holds a run; add `resume`"):
        train(job, Watcher())
    assert (job.out / name).read_text() == "mine"


def test_the_record_of_another_command_is_never_replaced(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"profile": "luad", "inputs": []}')  # as infer writes it
    with pytest.raises(UsageError, match="choose another `out`"):
        train(make_job(dataset, tmp_path), Watcher())
    assert "luad" in (tmp_path / "run.json").read_text()


def test_a_val_split_that_cannot_be_used_stops_before_the_first_step(
    dataset: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_dataset(data, training=4, split=1)
    shutil.rmtree(data / "val")
    (data / "val").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DatasetError, match="link to nothing"):
        train(make_job(data, tmp_path / "run"), Watcher())
    (data / "val").unlink()
    shutil.copytree(dataset / "val", data / "val")
    for mask in (data / "val" / "mask").iterdir():
        Image.new("L", (224, 224), 4).save(mask)
    with pytest.raises(DatasetError, match="background"):
        train(make_job(data, tmp_path / "run"), Watcher())


def test_a_run_does_not_go_into_its_dataset(dataset: Path) -> None:
    with pytest.raises(UsageError, match="lies in the dataset"):
        train(make_job(dataset, dataset / "training" / "run"), Watcher())


def test_a_resumed_run_keeps_its_number_of_threads(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums depend on it, and the cores or the environment may have changed since."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = make_job(dataset, tmp_path / "run", replace(SGD, epochs=1))
    train(job, Watcher(interrupt_after=1))
    assert json.loads((job.out / "run.json").read_text())["threads"] == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    watcher = Watcher()
    train(replace(job, resume=True), watcher)
    assert torch.get_num_threads() == 1
    assert "computing with 1 CPU thread (as the run was begun)" in watcher.news
    said: list[str] = []
    assert run_threads(replace(job, resume=True, threads=2), 1, said.append).count == 2
    assert said == [
        f"{job.out} was begun with 1 CPU threads: with 2 its end may differ in the last digits "
        "from that of an undisturbed run"
    ]


@pytest.mark.parametrize("threads", [None, "many", 0, True])
def test_a_run_without_a_usable_number_of_threads_gets_one(
    threads: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    job = make_job(tmp_path, tmp_path / "run", resume=True)
    job.out.mkdir()
    (job.out / "run.json").write_text(json.dumps({"threads": threads}))
    assert run_threads(job, 1, pytest.fail).count == 3
    (job.out / "run.json").write_text("{}")
    assert run_threads(job, 1, pytest.fail).count == 3
