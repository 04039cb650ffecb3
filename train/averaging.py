"""An exponential moving average of weights, which is scored and exported in their place.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control Optim.
30, 1992; exponential as in Tarvainen and Valpola, arXiv 1703.01780.
"""

from __future__ import annotations

import copy

import torch

from sshr_deploy.model import SSHR


def begin_average(model: SSHR) -> SSHR:
    """A copy in evaluation mode that never learns itself."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: SSHR, model: SSHR, decay: float, steps: int) -> None:
    """Let `average` follow weights and running statistics of `model` after a step of training.

    Args:
        average: becomes d average + (1 - d) model.
        model: after `steps` steps of the whole run.
        decay: d, once there were enough steps; min(decay, (1 + steps) / (10 + steps)) before, so
            that random initial weights are soon forgotten.
        steps: from 1.
    """
    decay = min(decay, (1 + steps) / (10 + steps))
    now = model.state_dict()
    for name, kept in average.state_dict().items():
        if kept.is_floating_point():
            kept.lerp_(now[name], 1 - decay)
        else:
            kept.copy_(now[name])
