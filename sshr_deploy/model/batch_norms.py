"""Batch norms of the backbone in order of depth, and the moments of what enters them.

A batch norm with statistics (mu, sigma) turns x into gamma (x - mu) / sigma + beta, with
sigma^2 = running variance + epsilon. Where its inputs had mean mt and spread st on the training set
and have m and s on other tissue, the statistics

    mu' = m + (mu - mt) s / st        sigma' = sigma s / st

give its output the mean and the spread that it had in training. Where mu = mt and sigma = st, as
training with batch norms that learn leaves them, that is plain re-estimation on the other tissue
(Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", arXiv 1603.04779).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sshr_deploy.model.normalisation import normalise
from sshr_deploy.model.resnet38d import ResNet38d

DEPTHS = ("b2", "b3", "b4", "b5", "b6", "b7")
"""Stages of the backbone, shallow to deep."""

_OF_STAGE = {"bn45": "b4", "bn52": "b5", "bn7": "b7"}
_CHUNK = 4  # patches that a convolution takes at once
MOMENTS_PREFIX = "moments/"
"""Names of moments of the training set among a checkpoint's tensors."""


class Moments(NamedTuple):
    """Of the C channels that enter a batch norm, over patches and places; float64."""

    mean: Tensor  # [C]
    spread: Tensor  # [C], standard deviation


OnNorm = Callable[[str, nn.BatchNorm2d, Moments], None]
"""Name of a batch norm, the norm, and the moments of its inputs; it may change the norm."""


def batch_norms(model: ResNet38d, last: str = DEPTHS[-1]) -> dict[str, nn.BatchNorm2d]:
    """The batch norms of stages up to and with `last` by name, in order of depth."""
    wanted = DEPTHS[: DEPTHS.index(last) + 1]
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and stage_of(name) in wanted
    }


def stage_of(norm: str) -> str:
    """Stage of `DEPTHS` that a batch norm belongs to, from its name: "b4_1.bn_branch2a" -> "b4"."""
    part = norm.split(".")[0]
    return _OF_STAGE.get(part, part.split("_")[0])


@torch.inference_mode()
def measure(
    model: ResNet38d,
    patches: NDArray[np.uint8],  # [P, H, W, 3], H and W multiples of 8
    *,
    last: str = DEPTHS[-1],
    cell_weights: NDArray[np.float32] | None = None,  # [P, H/8, W/8], >= 0
    on_norm: OnNorm = lambda *_: None,
) -> dict[str, Moments]:
    """Moments of what enters each batch norm of stages up to `last`, dropout off.

    Norms come in order of depth, each after `on_norm` has seen those before it: what it changes
    there, later moments show. All patches pass each stage together, about 1.5 times the work of one
    forward pass, so that moments are those of the whole set at once. A patch of 224 px takes
    12.8 MB at width 64 while they do.

    Args:
        model: on its device; its mode is left as it is.
        patches: RGB.
        last: of `DEPTHS`.
        cell_weights: how much each cell of 8 x 8 px counts; None for all alike.
        on_norm: see `OnNorm`.
    """
    was_training = model.training
    model.eval()
    try:
        return dict(_measured(model, patches, last, cell_weights, on_norm))
    finally:
        model.train(was_training)


def retuned(
    norm: nn.BatchNorm2d,
    now: Moments,
    training: Moments,
    *,
    strength: float = 1.0,
    min_spread: float = 0.0,
) -> Moments:
    """Statistics (mu', sqrt(running variance')) of a batch norm for other inputs; see the module.

    Args:
        norm: with the statistics that belong to `training`.
        now: moments of the inputs that it is to be used on.
        training: those that it had in training.
        strength: 0 leaves the statistics as they are, 1 follows the inputs all the way; between,
            the mean moves in proportion and the spread geometrically.
        min_spread: a channel's spreads count as at least this part of the norm's sigma, so that one
            that hardly varies is not blown up.
    """
    mu, variance = running_statistics(norm)
    sigma = (variance + norm.eps).sqrt()
    least = (min_spread * sigma).clamp_min(torch.finfo(torch.float64).tiny)
    ratio = now.spread.maximum(least) / training.spread.maximum(least)
    moved = now.mean + (mu - training.mean) * ratio
    sigma = sigma * ratio**strength
    return Moments(mu + strength * (moved - mu), (sigma.square() - norm.eps).clamp_min(0).sqrt())


def running_statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Running mean and variance of a batch norm, float64 [C] each."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.double(), norm.running_var.double()


@torch.no_grad()
def set_statistics(norm: nn.BatchNorm2d, statistics: Moments) -> None:
    """Give a batch norm a running mean, and the square of a spread as running variance."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(statistics.mean)
    norm.running_var.copy_(statistics.spread.square())


def moments_as_tensors(moments: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Moments by norm as named tensors, for a checkpoint."""
    return {
        f"{MOMENTS_PREFIX}{name}.{field}": value
        for name, pair in moments.items()
        for field, value in pair._asdict().items()
    }


def moments_from_tensors(
    model: ResNet38d, tensors: Mapping[str, Tensor]
) -> dict[str, Moments] | None:
    """What `moments_as_tensors` wrote of this network's norms; None where it is not all there.

    Raises:
        ValueError: a tensor has another shape than its norm, or is not finite.
    """
    found = {}
    for name, norm in batch_norms(model).items():
        names = [f"{MOMENTS_PREFIX}{name}.{field}" for field in Moments._fields]
        if not all(n in tensors for n in names):
            return None
        pair = [tensors[n] for n in names]
        for value in pair:
            if value.shape != (norm.num_features,) or not value.isfinite().all():
                raise ValueError(f"the moments of {name} are not {norm.num_features} numbers")
        found[name] = Moments(*(value.double() for value in pair))
    return found


def _measured(
    model: ResNet38d,
    patches: NDArray[np.uint8],
    last: str,
    cell_weights: NDArray[np.float32] | None,
    on_norm: OnNorm,
) -> Iterator[tuple[str, Moments]]:
    norms = batch_norms(model, last)
    device = model.conv1a.weight.device
    starts = range(0, len(patches), _CHUNK)
    chunks = [
        model.conv1a(normalise(torch.tensor(patches[i : i + _CHUNK], device=device)))
        for i in starts
    ]
    weights: list[Tensor | None] = [None] * len(chunks)
    if cell_weights is not None:
        weights = [torch.tensor(cell_weights[i : i + _CHUNK], device=device) for i in starts]
    deepest = next(reversed(norms)).split(".")[0]
    for stage, module in model.named_children():
        for name in [name for name in norms if name.split(".")[0] == stage]:
            moments = _moments(_entering(norms[name], module, chunks), weights)
            on_norm(name, norms[name], moments)
            yield name, moments
        if stage == deepest:
            return
        if stage != "conv1a" and not isinstance(module, nn.BatchNorm2d):  # those are side branches
            for index, chunk in enumerate(chunks):
                chunks[index] = module(chunk)


class _Reached(Exception):  # noqa: N818 - ends a forward pass, no error
    """Carries what enters a batch norm."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values


def _entering(norm: nn.BatchNorm2d, stage: nn.Module, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
    """What reaches a norm within its stage, for the stage's inputs; [B, C, h, w] each."""

    def stop(_: nn.Module, inputs: tuple[Tensor]) -> None:
        raise _Reached(inputs[0])

    for chunk in chunks:
        with norm.register_forward_pre_hook(stop):
            try:
                stage(chunk)
            except _Reached as reached:
                values = reached.values
        yield values


def _moments(entering: Iterator[Tensor], weights: Sequence[Tensor | None]) -> Moments:
    """Weighted mean and spread of [B, C, h, w] in float64, patch by patch (Chan et al. 1979)."""
    total, mean, squares = 0.0, torch.zeros(()), torch.zeros(())
    for chunk, of_cells in zip(entering, weights, strict=True):
        for index, values in enumerate(chunk.flatten(2)):  # [C, h w]
            count, own, own_squares = _sums(
                values, None if of_cells is None else _spread_out(of_cells[index], chunk.shape[-2:])
            )
            if count == 0:
                continue
            if total == 0:
                total, mean, squares = count, own, own_squares
                continue
            shift = own - mean
            together = total + count
            mean = mean + shift * (count / together)
            squares = squares + own_squares + shift.square() * (total * count / together)
            total = together
    if total == 0:
        raise ValueError("no patch has a weight above 0")
    return Moments(mean.cpu(), (squares / total).sqrt().cpu())


def _sums(values: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    """Sum of the weights, weighted mean and sum of squared deviations of values [C, n]; float64."""
    x = values.double()
    if weights is None:
        mean = x.mean(1)
        return x.shape[1], mean, x.sub_(mean[:, None]).square_().sum(1)
    count = weights.sum().item()
    if count == 0:
        return 0, x[:, 0], x[:, 0]
    mean = torch.mv(x, weights) / count
    return count, mean, torch.mv(x.sub_(mean[:, None]).square_(), weights)


def _spread_out(cells: Tensor, size: torch.Size) -> Tensor:
    """Weights [H/8, W/8] of cells at the places [h w] of a feature map, each cell's own."""
    rows, columns = (n // m for n, m in zip(size, cells.shape, strict=True))
    return cells.double().repeat_interleave(rows, 0).repeat_interleave(columns, 1).flatten()
