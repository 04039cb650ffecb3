"""Weights that a network starts from: random ones, and files of trained ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sshr_deploy.errors import CheckpointError
from sshr_deploy.model.checkpoint import read_tensors, require_file, why_unusable
from sshr_deploy.model.config import MAX_WIDTH, ModelConfig
from sshr_deploy.model.sshr import SSHR
from sshr_deploy.train.mxnet_params import read_mxnet_params, sshr_names

_HEADS = ("ic_56", "ic1", "ic2", "fc8")
_LEFTOVERS = ("linear1000",)
"""Modules of files to start from that SSHR leaves out: the ImageNet classifier."""
_COUNTER = "num_batches_tracked"
_LISTED = 8


@dataclass(frozen=True)
class LoadedWeights:
    """Which tensors a file gave, in the network's order; the batch norms' counters are left out."""

    path: Path
    loaded: tuple[str, ...]
    new: tuple[str, ...]
    """Those that the file does not have, as they were before."""

    def describe(self) -> str:
        """One line: how many tensors came from which file, and which modules are new."""
        modules = Counter(_module(name) for name in self.loaded + self.new)
        new = Counter(_module(name) for name in self.new)
        named = [
            module if count == modules[module] else f"{module} ({count} of {modules[module]})"
            for module, count in new.items()
        ]
        total = len(self.loaded) + len(self.new)
        text = f"init: {len(self.loaded)} of {total} tensors from {self.path}"
        return f"{text}; new: {', '.join(named)}" if named else text


def new_model(config: ModelConfig, seed: int) -> SSHR:
    """Random weights, on the CPU, in training mode; one seed gives the same ones.

    The backbone's convolutions are drawn as in He et al., arXiv 1502.01852, for ReLU; HFRM and the
    heads start as `SSHR` makes them. The caller's random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed reseeds every GPU too
        model = SSHR(config)
        heads = {getattr(model, name) for name in _HEADS}
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1 and module not in heads:
                nn.init.kaiming_normal_(module.weight)
    return model


def load_initial_weights(model: SSHR, path: Path) -> LoadedWeights:
    """Copy the tensors of a file into `model`, as FP32, and say which ones stay as they were.

    `path` is MXNet's `.params` with ImageNet weights, or a `.pth`, `.pt` or `.safetensors` with
    SSHR's tensor names; it need not hold all of them. Heads of another class count stay new. So do
    bn45 and bn52 with ImageNet weights, which have none: under a recipe with frozen batch norms
    they then only divide by sqrt(1 + 1e-5). A refused file leaves `model` unchanged.

    Raises:
        CheckpointError: unreadable file; weights of another width; tensors that the network does
            not have, of another shape, or with NaN or infinite values (listed); nothing that fits.
    """
    found = {k: v for k, v in _read(path).items() if _module(k) not in _LEFTOVERS}
    expected = model.state_dict()
    unknown = [name for name in found if name not in expected]
    if unknown:
        raise CheckpointError(
            f"{path} holds tensors that SSHR does not have: {_listed(unknown, ', ')}; give the "
            "weights of an SSHR network or of its ImageNet backbone"
        )
    _check_width(path, found, model.config.width)
    other_heads = _heads_of_other_classes(path, expected, found)
    fitting = {name: tensor for name, tensor in found.items() if name not in other_heads}
    problems = [
        f"{name} {reason}"
        for name, tensor in fitting.items()
        if (reason := _misfit(expected[name], tensor)) is not None
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit SSHR with width {model.config.width}: {_listed(problems, '; ')}"
        )
    names = [name for name in expected if not name.endswith(_COUNTER)]
    loaded = tuple(name for name in names if name in fitting)
    if not loaded:
        raise CheckpointError(
            f"{path} holds no tensor that fits SSHR with {model.config.num_classes} classes; "
            "give the weights of an SSHR network or of its ImageNet backbone"
        )
    model.load_state_dict(fitting, strict=False)
    return LoadedWeights(path, loaded, tuple(name for name in names if name not in fitting))


def _read(path: Path) -> Mapping[str, Tensor]:
    require_file(path)
    suffix = path.suffix.lower()
    if suffix == ".params":
        arrays = sshr_names(read_mxnet_params(path), str(path))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    if suffix in {".pth", ".pt", ".safetensors"}:
        return read_tensors(path)
    raise CheckpointError(
        f"{path} is neither .params (MXNet), .pth nor .safetensors; convert it to one of them"
    )


def _check_width(path: Path, found: Mapping[str, Tensor], width: int) -> None:
    first = found.get("conv1a.weight")
    if first is None or first.shape[1:] != (3, 3, 3) or first.shape[0] == width:
        return
    if 1 <= first.shape[0] <= MAX_WIDTH:
        raise CheckpointError(
            f"{path} holds weights of width {first.shape[0]}, but the network has width {width}: "
            f"give `width` {first.shape[0]} or leave them out"
        )


def _heads_of_other_classes(
    path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> set[str]:
    """Head tensors that differ from the network's in their class count, the first dimension."""
    heads = {
        name: tensor
        for name, tensor in found.items()
        if _module(name) in _HEADS
        and tensor.dim() == expected[name].dim()
        and tensor.shape[1:] == expected[name].shape[1:]
    }
    counts = sorted({tensor.shape[0] for tensor in heads.values()})
    if len(counts) > 1:
        raise CheckpointError(
            f"{path} has heads of different class counts ({', '.join(map(str, counts))}); give a "
            "file that one training wrote"
        )
    return {name for name, tensor in heads.items() if tensor.shape != expected[name].shape}


def _misfit(expected: Tensor, found: Tensor) -> str | None:
    if found.shape != expected.shape:
        return f"is {list(found.shape)}, not {list(expected.shape)}"
    return why_unusable(expected, found)


def _module(name: str) -> str:
    return name.partition(".")[0]


def _listed(items: list[str], separator: str) -> str:
    more = len(items) - _LISTED
    return separator.join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")
