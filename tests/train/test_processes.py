"""Two processes train as one does with the same global batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from sshr_deploy.errors import UsageError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from sshr_deploy.train.processes import Processes, join_processes
from sshr_deploy.train.run_checkpoint import LAST_NAME
from tests.train.dataset_of_textures import (
    LIMIT_S,
    SETTINGS,
    check_readable,
    position,
    rows,
    train_command,
    train_here,
    write_textures,
    write_tiny_recipe,
)

WIDTH = 2


@dataclass(frozen=True)
class Case:
    textures: Path
    init: Path
    recipe: Path
    alone: Path
    """The run of one process."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Frozen batch norms, since those that learn see only their process's share on a CPU."""
    folder = tmp_path_factory.mktemp("case")
    case = Case(
        write_textures(folder / "data"),
        folder / "init.safetensors",
        # A checkpoint after each step, because its all-reduces must not change the run.
        _recipe(folder / "r.toml", checkpoint_minutes=1e-6),
        folder / "alone",
    )
    torch.manual_seed(7)
    model = SSHR(ModelConfig(4, WIDTH))
    for head in (model.ic_56, model.ic1, model.ic2, model.fc8):
        torch.nn.init.normal_(head.weight, std=0.5)
    save_checkpoint(model, case.init)
    train_here(case.textures, case.recipe, case.alone, width=WIDTH, init=case.init)
    return case


def test_two_processes_train_as_one(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = _torchrun(case.textures, case.recipe, out, "--init", str(case.init))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("12 training patches") == 1
    _check_close(out, case.alone)


def test_two_processes_go_on_with_the_run_of_one(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun = train_here(case.textures, case.recipe, out, width=WIDTH, init=case.init, stop_after=4)
    assert begun.interrupted
    assert position(out) == (1, 1)
    done = _torchrun(case.textures, case.recipe, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on after 1 epochs and 1 steps" in done.stderr
    _check_close(out, case.alone)


def test_an_error_of_the_first_process_ends_both(case: Case, tmp_path: Path) -> None:
    textures, out = write_textures(tmp_path / "data", training=4, val=1), tmp_path / "run"
    (textures / "training" / "no labels.png").write_bytes(b"no image")
    done = _torchrun(textures, case.recipe, out, "--init", str(case.init))
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if "sshr-deploy: error:" in line]
    assert sum("no labels.png" in line for line in errors) == 1, done.stderr
    assert "[rank" not in done.stderr  # a traceback; torchrun itself adds one of its own


def test_a_batch_that_does_not_divide_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshr_deploy.train.run.join_processes", _first_of_two)
    recipe, out = _recipe(tmp_path / "r.toml", batch=5), tmp_path / "run"
    with pytest.raises(UsageError, match="batch of 5 does not divide among 2 processes"):
        train_here(case.textures, recipe, out, width=WIDTH, init=case.init)
    assert not out.exists()


def _recipe(path: Path, **changes: Any) -> Path:
    return write_tiny_recipe(path, **{"epochs": 2, "batch_norm": "frozen", **changes})


def _torchrun(
    textures: Path, recipe: Path, out: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = train_command(textures, recipe, out, *more, width=WIDTH)
    return subprocess.run(
        [sys.executable, *launcher, *command[1:]],
        capture_output=True, encoding="utf-8", env=SETTINGS, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def _check_close(out: Path, alone: Path) -> None:
    check_readable(out)
    assert position(out) == position(alone) == (2, 0)
    for found, expected in zip(rows(out), rows(alone), strict=True):
        for name in ("loss", "loss_56", "loss_28_1", "loss_28_2", "loss_deep"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5), name
        assert found.learning_rate == expected.learning_rate
        assert found.exact_match == expected.exact_match
        assert found.label_accuracy == expected.label_accuracy
        assert found.val is not None
        assert expected.val is not None
        # Rounding may turn a few of the 100 352 pixels.
        assert found.val.mean_iou == pytest.approx(expected.val.mean_iou, abs=1e-3)
        assert found.val.pixel_accuracy == pytest.approx(expected.val.pixel_accuracy, abs=1e-3)
        assert found.val.label_accuracy == expected.val.label_accuracy
    found_weights = load_checkpoint(out / LAST_NAME).state_dict()
    for key, value in load_checkpoint(alone / LAST_NAME).state_dict().items():
        torch.testing.assert_close(found_weights[key], value, rtol=1e-5, atol=1e-6, msg=key)


class _FirstOfTwo(Processes):
    def broadcast(self, value: Any) -> Any:
        return value


@contextmanager
def _first_of_two() -> Iterator[Processes]:
    yield _FirstOfTwo(0, 2, torch.device("cpu"))


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "2"},
        {"RANK": "5"},
        {"LOCAL_RANK": "-1", "LOCAL_WORLD_SIZE": "0"},
    ],
)
def test_an_environment_that_is_not_torchruns_is_one_line(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="use torchrun"), join_processes():
        pass
