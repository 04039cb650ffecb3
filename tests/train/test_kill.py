"""Killed or interrupted at any moment, a run goes on and ends as an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME
from tests.train.dataset_of_textures import (
    check_readable,
    position,
    rows,
    train_command,
    train_here,
    write_textures,
    write_tiny_recipe,
)
from tests.train.forked_run import AtCall, HalfWrittenCheckpoint, SlowSteps, start

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

EACH_STEP = 1e-6  # checkpoint_minutes: shorter than any step

PLACES = (  # in the order of a run, what is called next and for which time
    "run:validate:1",
    "history/History:append:1",
    "run_state:save_run:2",  # the first is before the validation, the second after the row
    "run_state:save_checkpoint:1",  # the best
    "run:_draw:1",
)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_textures(tmp_path_factory.mktemp("data"), training=16)


@pytest.fixture(scope="module")
def undisturbed(textures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_here(textures, write_tiny_recipe(folder / "r.toml"), folder / "run")
    return folder / "run"


def test_killed_it_goes_on_from_its_last_whole_checkpoint(
    textures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe = write_tiny_recipe(tmp_path / "r.toml", checkpoint_minutes=EACH_STEP)
    out, draw = tmp_path / "run", random.Random(3)
    run = start(_arguments(textures, recipe, out), tmp_path, SlowSteps())
    run.until(lambda: position(out) > (0, 0))
    time.sleep(draw.uniform(0, 0.3))
    run.send(signal.SIGKILL)
    check_readable(out)
    first = position(out)

    resumed = _arguments(textures, recipe, out, "--resume")
    run = start(resumed, tmp_path, HalfWrittenCheckpoint(3))
    assert run.wait() == -signal.SIGKILL, run.stderr
    assert f"going on after {first[0]} epochs and {first[1]} steps" in run.stderr
    assert len(list(out.glob(f".{LAST_NAME}.*.partial"))) == 1
    check_readable(out)
    assert position(out) > first

    train_here(textures, recipe, out, resume=True)
    _check_equal(out, undisturbed)


def test_killed_at_each_place_between_two_epochs(
    textures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml"), tmp_path / "run"
    arguments = _arguments(textures, recipe, out)
    _kill_at("job:write_json:1", arguments, tmp_path)
    assert [path.name.split(".")[1] for path in out.iterdir()] == ["running"]
    for place in PLACES:
        _kill_at(place, arguments, tmp_path)
        check_readable(out)
        arguments = _arguments(textures, recipe, out, "--resume")
    train_here(textures, recipe, out, resume=True)
    _check_equal(out, undisturbed)


def test_interrupted_it_keeps_the_step_it_was_at(
    textures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml"), tmp_path / "run"
    arguments = _arguments(textures, recipe, out)
    # Unless somebody wishes to stop, such a short run writes its checkpoints between epochs.
    for by, epochs in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        run = start(arguments, tmp_path, SlowSteps())
        run.until(lambda epochs=epochs: len(rows(out)) >= epochs)  # type: ignore[misc]
        stderr = run.send(by)
        assert run.wait() == 1, stderr
        assert "interrupted" in stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        check_readable(out)
        assert position(out) > (epochs, 0)
        arguments = _arguments(textures, recipe, out, "--resume")
    train_here(textures, recipe, out, resume=True)
    _check_equal(out, undisturbed)


def _check_equal(out: Path, expected: Path) -> None:
    """Weights, optimiser and generators bit for bit, and every figure but times."""
    for name in (LAST_NAME, BEST_NAME):
        found, wanted = load_file(out / name), load_file(expected / name)
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    assert rows(out) == rows(expected)
    assert position(out) == position(expected) == (3, 0)
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}


def _arguments(textures: Path, recipe: Path, out: Path, *more: str) -> list[str]:
    return train_command(textures, recipe, out, *more)[3:]


def _kill_at(place: str, arguments: list[str], folder: Path) -> None:
    run = start(arguments, folder, AtCall(place))
    assert run.wait() == -signal.SIGKILL, (place, run.stderr)


def test_a_signal_to_the_whole_group_with_workers_keeps_the_step(
    textures: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml", epochs=50), tmp_path / "run"
    arguments = _arguments(textures, recipe, out)
    arguments[arguments.index("--workers") + 1] = "1"
    run = start(arguments, tmp_path)
    run.until(lambda: len(rows(out)) >= 1)
    assert run.process.pid is not None
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.wait() == 1, run.stderr
    assert "interrupted" in run.stderr
    check_readable(out)
    assert position(out) >= (1, 0)
