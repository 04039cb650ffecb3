"""A checkpoint to go on from that was tampered with is refused, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sshr_deploy.errors import SshrDeployError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.train.meter import EpochMeter
from sshr_deploy.train.network import TrainingNetwork
from sshr_deploy.train.optimiser import build_optimiser
from sshr_deploy.train.recipe import load_recipe
from sshr_deploy.train.run_checkpoint import Position, load_run, save_run

RECIPE = load_recipe("smoke")
Parts = tuple[SSHR, torch.optim.Optimizer]
Tensors = dict[str, Tensor]
Header = dict[str, Any]
Edit = Callable[[Tensors, Header], object]


def _parts(width: int = 1) -> Parts:
    torch.manual_seed(0)
    model = SSHR(ModelConfig(2, width))
    TrainingNetwork(model, RECIPE)
    return model, build_optimiser(model, RECIPE)


def _stepped() -> Parts:
    model, optimiser = _parts()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    return model, optimiser


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.safetensors"
    save_run(path, *_stepped(), Position(1, 2), EpochMeter().sums, {"title": "x"}, {})
    return path


def test_everything_comes_back(checkpoint: Path) -> None:
    (model, optimiser), (fresh, of_fresh) = _stepped(), _parts()
    torch.manual_seed(5)
    position, sums = load_run(checkpoint, fresh, of_fresh)
    assert (position, sums.tolist()) == (Position(1, 2), EpochMeter().sums.tolist())
    for name, parameter in model.named_parameters():
        assert torch.equal(fresh.get_parameter(name), parameter)
        momentum = of_fresh.state[fresh.get_parameter(name)]["momentum_buffer"]
        assert torch.equal(momentum, optimiser.state[parameter]["momentum_buffer"])
    _stepped()  # the generator stands where it stood when the file was written
    drawn = torch.rand(3)
    load_run(checkpoint, fresh, of_fresh)
    assert torch.equal(torch.rand(3), drawn)


def _edit(path: Path, change: Edit) -> None:
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, header)
    save_file(tensors, path, metadata=header)


def _position(text: str) -> Edit:
    return lambda _, header: header.update(position=text)


def _tensor(name: str, value: Tensor) -> Edit:
    return lambda tensors, _: tensors.update({name: value})


MOMENTUM = "resume/optimiser/fc8.weight/momentum_buffer"
BAD: dict[str, Edit] = {
    "no position": lambda _, header: header.pop("position"),
    "negative epoch": _position('{"epoch": -1, "step": 0}'),
    "step of text": _position('{"epoch": 1, "step": "a"}'),
    "fraction of a step": _position('{"epoch": 1, "step": 1.5}'),
    "deep position": _position("[" * 100_000),
    "short generator": _tensor("resume/rng_cpu", torch.zeros(9, dtype=torch.uint8)),
    "generator of fractions": _tensor("resume/rng_cpu", torch.zeros(5056)),
    "short sums": _tensor("resume/meter", torch.zeros(3, dtype=torch.float64)),
    "sums of NaN": _tensor("resume/meter", EpochMeter().sums * torch.nan),
    "unknown parameter": _tensor("resume/optimiser/nobody/momentum_buffer", torch.ones(2)),
    "no field": _tensor("resume/optimiser/x", torch.ones(2)),
    "momentum of another shape": _tensor(MOMENTUM, torch.ones(3)),
    "momentum of NaN": _tensor(MOMENTUM, torch.full((2, 64, 1, 1), torch.nan)),
    "whole numbers": _tensor(MOMENTUM, torch.ones((2, 64, 1, 1), dtype=torch.int64)),
    "one momentum missing": lambda tensors, _: tensors.pop(MOMENTUM),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_state_is_one_line(name: str, checkpoint: Path) -> None:
    _edit(checkpoint, BAD[name])
    with pytest.raises(SshrDeployError, match=r"last\.safetensors holds weights but no usable"):
        load_run(checkpoint, *_parts())


def test_a_checkpoint_of_another_width_is_one_line(checkpoint: Path) -> None:
    with pytest.raises(SshrDeployError, match="another width or class count"):
        load_run(checkpoint, *_parts(width=2))


def test_the_position_is_plain_json_in_the_header(checkpoint: Path) -> None:
    with safe_open(checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["position"]) == {"epoch": 1, "step": 2}
