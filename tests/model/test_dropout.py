"""Channel dropout: what PyTorch's does, and one draw for several processes."""

from __future__ import annotations

import pytest
import torch

from sshr_deploy.model.dropout import ChannelDropout


def test_whole_channels_are_dropped_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    out = ChannelDropout(0.3)(torch.ones(50, 200, 2, 3))
    assert torch.equal(out, out[:, :, :1, :1].expand_as(out))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (out == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_evaluation_and_probability_zero_change_nothing() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert ChannelDropout(0.5).eval()(x) is x
    assert ChannelDropout(0.0)(x) is x


def test_dropout_commutes_with_the_mean() -> None:
    x, drop = torch.randn(4, 6, 5, 5).double(), ChannelDropout(0.5)
    torch.manual_seed(1)
    before = drop(x).mean((2, 3))
    torch.manual_seed(1)
    torch.testing.assert_close(drop(x.mean((2, 3))), before)


def test_processes_drop_together_what_one_drops_alone() -> None:
    x = torch.randn(6, 5, 2, 2)
    alone, parts = ChannelDropout(0.5), []
    torch.manual_seed(3)
    whole = torch.cat([alone(x), alone(x)], 1)  # two draws in a row
    for rank in range(3):
        drop = ChannelDropout(0.5)
        drop.rank, drop.world = rank, 3
        own = x[2 * rank : 2 * rank + 2]
        torch.manual_seed(3)
        parts.append(torch.cat([drop(own), drop(own)], 1))
    assert torch.equal(torch.cat(parts), whole)
