"""Killed or interrupted at any moment, a run goes on and ends as an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME
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

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

EACH_STEP = 1e-6  # checkpoint_minutes: shorter than any step
DYING = f"""
import os, pathlib, signal, sys
from sshr_deploy.cli import main
write, calls = pathlib.Path.write_bytes, []
def write_or_die(path, content):
    calls.append("{LAST_NAME}" in path.name)
    if sum(calls) < 3:
        return write(path, content)
    write(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.write_bytes = write_or_die
sys.argv.insert(1, "train")
main()
"""

DYING_AT = """
import importlib, os, signal, sys
from sshr_deploy.cli import main
place, name, count = sys.argv.pop(1).split(":")
module, _, of = place.partition("/")
owner = importlib.import_module("sshr_deploy.train." + module)
owner = getattr(owner, of) if of else owner
real, calls = getattr(owner, name), []
def die(*args, **options):
    calls.append(None)
    if len(calls) == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)
setattr(owner, name, die)
sys.argv.insert(1, "train")
main()
"""
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
    process = _start(train_command(textures, recipe, out))
    _wait(process, lambda: position(out) > (0, 0))
    time.sleep(draw.uniform(0, 0.3))
    _end(process, signal.SIGKILL)
    check_readable(out)
    first = position(out)

    process = _start(_dying(train_command(textures, recipe, out, "--resume")))
    stderr = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == -signal.SIGKILL, stderr
    assert f"going on after {first[0]} epochs and {first[1]} steps" in stderr
    assert len(list(out.glob(f".{LAST_NAME}.*.partial"))) == 1
    check_readable(out)
    assert position(out) > first

    train_here(textures, recipe, out, resume=True)
    _check_equal(out, undisturbed)


def test_killed_at_each_place_between_two_epochs(
    textures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml"), tmp_path / "run"
    command = train_command(textures, recipe, out)
    _run_dying(command, "job:write_json:1")
    assert [path.name.split(".")[1] for path in out.iterdir()] == ["running"]
    for place in PLACES:
        _run_dying(command, place)
        check_readable(out)
        command = train_command(textures, recipe, out, "--resume")
    train_here(textures, recipe, out, resume=True)
    _check_equal(out, undisturbed)


def test_interrupted_it_keeps_the_step_it_was_at(
    textures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml"), tmp_path / "run"
    command = train_command(textures, recipe, out)
    # Unless somebody wishes to stop, such a short run writes its checkpoints between epochs.
    for by, epochs in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        process = _start(command)
        _wait_for_row(process, out, epochs)
        stderr = _end(process, by)
        assert process.returncode == 1, stderr
        assert "interrupted" in stderr
        assert "--resume" in stderr
        assert "Traceback" not in stderr
        check_readable(out)
        assert position(out) > (epochs, 0)
        command = train_command(textures, recipe, out, "--resume")
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


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=SETTINGS, text=True
    )


def _end(process: subprocess.Popen[str], by: signal.Signals) -> str:
    process.send_signal(by)
    return process.communicate(timeout=LIMIT_S)[1]


def _dying(command: list[str]) -> list[str]:
    """The same process, which SIGKILL ends half-way through writing its third checkpoint."""
    assert command[1:3] == ["-m", "sshr_deploy.train"]
    return [command[0], "-c", DYING, *command[3:]]


def _run_dying(command: list[str], place: str) -> None:
    """The same process until it comes to `place`, where SIGKILL ends it."""
    dying = [command[0], "-c", DYING_AT, place, *command[3:]]
    done = subprocess.run(dying, capture_output=True, env=SETTINGS, text=True, timeout=LIMIT_S)
    assert done.returncode == -signal.SIGKILL, (place, done.stderr)


def _wait_for_row(process: subprocess.Popen[str], out: Path, epoch: int) -> None:
    _wait(process, lambda: len(rows(out)) >= epoch)


def _wait(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not reached():
        if process.poll() is not None or time.monotonic() > deadline:
            _end(process, signal.SIGKILL)
            pytest.fail(f"ended too early or too late, exit code {process.returncode}")
        time.sleep(0.005)


def test_a_signal_to_the_whole_group_with_workers_keeps_the_step(
    textures: Path, tmp_path: Path
) -> None:
    recipe, out = write_tiny_recipe(tmp_path / "r.toml", epochs=50), tmp_path / "run"
    command = train_command(textures, recipe, out)
    command[command.index("--workers") + 1] = "1"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=SETTINGS, text=True,
        start_new_session=True,
    )  # fmt: skip
    _wait_for_row(process, out, 1)
    os.killpg(process.pid, signal.SIGTERM)
    stderr = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 1, stderr
    assert "interrupted" in stderr
    check_readable(out)
    assert position(out) >= (1, 0)
