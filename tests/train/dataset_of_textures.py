"""What tests of whole training runs share: a tiny dataset, a tiny recipe, a run as a process."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors import safe_open

from sshr_deploy.cli.training_console import QuietTrainingReporter
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import load_profile
from sshr_deploy.train.demo_dataset import write_dataset
from sshr_deploy.train.history import EpochRow, StepNews
from sshr_deploy.train.job import TrainingJob
from sshr_deploy.train.recipe import load_recipe
from sshr_deploy.train.run import TrainingResult, train
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME

DEMO_PROFILE = Path(__file__).resolve().parents[2] / "demo" / "profile.toml"
SETTINGS = {
    **os.environ,
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONIOENCODING": "utf-8",
    "TERM": "dumb",
}
LIMIT_S = 120
_TINY: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "epochs": 3,
    "batch": 4,
    "optimiser": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "new_layer_factor": 1.0,
    "batch_norm": "learn",
    "freeze_stem": False,
    "precision": "fp32",
}


def write_textures(folder: Path, training: int = 12, val: int = 2) -> Path:
    """Write patches of the demo profile's four textures; returns `folder`."""
    write_dataset(folder, training, val)
    return folder


def tiny_recipe_text(**changes: Any) -> str:
    """TOML of a recipe that runs for seconds at width 1 or 2; `changes` are fields of its own."""
    fields = {**_TINY, **changes}.items()
    # JSON's strings, numbers and booleans are TOML's.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields)


def write_tiny_recipe(path: Path, **changes: Any) -> Path:
    """Write `tiny_recipe_text` to `path` and return it."""
    path.write_text(tiny_recipe_text(**changes), "utf-8")
    return path


def train_command(dataset: Path, recipe: Path, out: Path, *more: str, width: int = 1) -> list[str]:
    """`python -m sshr_deploy.train` with the demo profile and without loading workers."""
    return [
        *(sys.executable, "-m", "sshr_deploy.train", str(dataset), "--recipe", str(recipe)),
        *("--profile", str(DEMO_PROFILE), "--out", str(out), "--width", str(width)),
        *("--workers", "0", *more),
    ]


def train_here(
    dataset: Path, recipe: Path, out: Path, *, width: int = 1, init: Path | None = None,
    stop_after: int | None = None, resume: bool = False,
) -> TrainingResult:  # fmt: skip
    """The same in this process, on one thread; a SIGTERM stops it after so many steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job = TrainingJob(
            dataset, load_profile(str(DEMO_PROFILE)), load_recipe(str(recipe)), out, width, init,
            resume, workers=0,
        )  # fmt: skip
        return train(job, Watcher(stop_after))
    finally:
        torch.set_num_threads(threads)


class Watcher(QuietTrainingReporter):
    """Says nothing; sends this process a SIGTERM after step `stop_after` of the run."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__(Console(stderr=True))
        self.stop_after = stop_after
        self.steps = 0

    def step_done(self, news: StepNews) -> None:
        self.steps += 1
        if self.steps == self.stop_after:
            signal.raise_signal(signal.SIGTERM)


def position(out: Path) -> tuple[int, int]:
    """Finished epochs and steps of the next one in the last checkpoint; (0, 0) without one."""
    path = out / LAST_NAME
    if not path.exists():
        return 0, 0
    with safe_open(path, framework="pt") as file:
        where = json.loads(file.metadata()["position"])
    return where["epoch"], where["step"]


def rows(out: Path) -> list[EpochRow]:
    """The epochs in metrics.jsonl, times left out; a half line at its end is passed over."""
    path = out / "metrics.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return [
        EpochRow.from_json(line).without_timings()
        for line in text.splitlines(keepends=True)
        if line.endswith("\n")
    ]


def check_readable(out: Path) -> None:
    """Whatever lies in a run's folder can be read."""
    json.loads((out / "run.json").read_text("utf-8"))
    assert len(rows(out)) >= position(out)[0]
    for name in (LAST_NAME, BEST_NAME):
        if (out / name).exists():
            load_checkpoint(out / name)
