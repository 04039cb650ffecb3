"""A run's checkpoints: `last.safetensors`, from which it goes on, and `best.safetensors`.

Both are ordinary checkpoints with profile, recipe and versions in the header. The last one also
holds, in the same file, so that they never disagree, what is needed to go on: the optimiser's
state, the generators' states and the position, under names that begin with `resume/`; and the
trained weights themselves, where their average is what the checkpoints give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from torch.optim import Optimizer

from sshr_deploy.errors import TrainingError, first_line
from sshr_deploy.model import SSHR
from sshr_deploy.model.checkpoint import (
    POSITION_KEY,
    RESUME_PREFIX,
    load_checkpoint,
    read_aside,
    read_header,
    save_checkpoint,
)
from sshr_deploy.train.meter import EpochMeter

LAST_NAME = "last.safetensors"
BEST_NAME = "best.safetensors"
_OPTIMISER = f"{RESUME_PREFIX}optimiser/"
_CPU_RNG, _CUDA_RNG = f"{RESUME_PREFIX}rng_cpu", f"{RESUME_PREFIX}rng_cuda"
_TRAINED = f"{RESUME_PREFIX}trained/"
_METER = f"{RESUME_PREFIX}meter"


_Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    epoch: _Count = 0
    """Epochs that are finished."""
    step: _Count = 0
    """Steps of the current epoch that are done."""


_POSITION = TypeAdapter(Position)


def save_run(
    path: Path,
    model: SSHR,
    optimiser: Optimizer,
    position: Position,
    meter: Tensor,
    header: Mapping[str, str],
    aside: Mapping[str, Tensor],
    average: SSHR | None = None,
) -> None:
    """Write weights and everything that is needed to go on, whole or not at all.

    `meter` holds the sums of the current epoch, `aside` what else the file keeps. Where there is an
    `average` of the weights, it is what the file gives to others than `load_run`.

    Raises:
        OutputError: it cannot be written.
    """
    state = {**aside, _METER: meter, **generator_states()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            state[f"{_OPTIMISER}{name}/{key}"] = value
    if average is not None:
        state |= {f"{_TRAINED}{name}": value for name, value in model.state_dict().items()}
    metadata = {**header, POSITION_KEY: json.dumps(asdict(position))}
    save_checkpoint(average or model, path, metadata=metadata, aside=state)


def load_run(
    path: Path, model: SSHR, optimiser: Optimizer, average: SSHR | None = None
) -> tuple[Position, Tensor]:
    """Put `model`, `optimiser`, `average` and the generators where `save_run` left them.

    Returns the position and the sums of the current epoch.

    Raises:
        CheckpointError: the file is damaged.
        TrainingError: it holds no state of a run, or that of another network.
    """
    loaded = load_checkpoint(path)
    if loaded.config != model.config:
        raise TrainingError(f"{path} is of another width or class count than the run; restore it")
    (average or model).load_state_dict(loaded.state_dict())
    try:
        position = _POSITION.validate_json(read_header(path)[POSITION_KEY])
        state = read_aside(path, RESUME_PREFIX)
        if average is not None:
            like = model.state_dict()
            trained = {name: _checked(state[f"{_TRAINED}{name}"], like[name]) for name in like}
            model.load_state_dict(trained)
        _restore_optimiser(model, optimiser, state, begun=position != Position())
        set_generator_states(state)
        return position, _checked(state[_METER], EpochMeter().sums)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{path} holds weights but no usable state of a run ({first_line(error)}); train "
            f"without `resume` in another folder, with `init` {path}"
        ) from error


def _restore_optimiser(
    model: SSHR, optimiser: Optimizer, state: Mapping[str, Tensor], *, begun: bool
) -> None:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for key, value in state.items():
        if key.startswith(_OPTIMISER):
            name, _, field = key.removeprefix(_OPTIMISER).rpartition("/")
            like = parameters[name]
            if value.dim() > 0:  # in the layout and on the device of its parameter
                value = torch.empty_like(like).copy_(_checked(value, like))
            optimiser.state[like][field] = value  # AdamW's step count stays on the CPU
    keeps_nothing = optimiser.defaults.get("momentum") == 0  # SGD without momentum
    if begun and not keeps_nothing and len(optimiser.state) != len(parameters):
        raise ValueError("the optimiser's state is incomplete")


def _checked(value: Tensor, like: Tensor) -> Tensor:
    if value.shape != like.shape or value.dtype != like.dtype or not value.isfinite().all():
        raise ValueError("a tensor has another shape or type, or is not finite")
    return value


def generator_states() -> dict[str, Tensor]:
    """States of PyTorch's generators, on the CPU and on this process's GPU."""
    states = {_CPU_RNG: torch.get_rng_state()}
    if torch.cuda.is_available():
        states[_CUDA_RNG] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: Mapping[str, Tensor]) -> None:
    """Put the generators back where `generator_states` found them; others stay as they are."""
    torch.set_rng_state(states[_CPU_RNG])
    if _CUDA_RNG in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[_CUDA_RNG])
