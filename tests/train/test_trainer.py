"""A step that must not be taken, and what is counted of those that are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sshr_deploy.errors import TrainingError
from sshr_deploy.train.loading import Batch
from sshr_deploy.train.losses import head_losses, total_loss
from sshr_deploy.train.meter import EpochMeter, epoch_means
from sshr_deploy.train.trainer import Trainer


class OneWeight(nn.Module):
    """Logits that are its only parameter, through a root that may have no slope."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((4, 2, 3), start))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.weight.sqrt()


BATCH = Batch(
    torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
    torch.tensor([[1.0, 0, 0], [1, 1, 0]]),
    torch.tensor([7, 3]),
)
FILES = [Path(f"{index}.png") for index in range(9)]


def _trainer(network: OneWeight) -> Trainer:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    return Trainer(network, optimiser, torch.device("cpu"), FILES)


@pytest.mark.parametrize(("start", "what"), [(-1.0, "loss is nan"), (0.0, "gradient is (inf|nan)")])
def test_no_step_is_taken_where_loss_or_gradient_is_not_finite(start: float, what: str) -> None:
    network = OneWeight(start)
    with pytest.raises(TrainingError, match=rf"the {what} on the batch 7\.png, 3\.png;"):
        list(_trainer(network).steps(iter([BATCH]), EpochMeter()))
    assert torch.equal(network.weight.detach(), torch.full((4, 2, 3), start))


def test_the_meter_holds_what_was_seen() -> None:
    network, meter = OneWeight(4.0), EpochMeter()
    first = head_losses(network(BATCH.rgb), BATCH.labels).detach()
    seen = list(_trainer(network).steps(iter([BATCH, BATCH]), meter))
    torch.testing.assert_close(seen[0], first)
    assert total_loss(seen[1]) < total_loss(seen[0])
    means = epoch_means(meter.sums)
    assert means.patches == 4
    assert means.head_losses == pytest.approx(torch.stack(seen).mean(0).tolist())
    assert means.label_accuracy == pytest.approx(3 / 6)  # every logit is above 0
    assert means.exact_match == 0
    assert 0 <= means.data_wait_s < means.seconds


def test_times_of_processes_are_averaged_and_counts_added() -> None:
    meter = EpochMeter()
    list(_trainer(OneWeight(4.0)).steps(iter([BATCH]), meter))
    one, two = epoch_means(meter.sums), epoch_means(2 * meter.sums, world=2)
    assert two.patches == 2 * one.patches
    assert two.head_losses == pytest.approx(one.head_losses)
    assert two.seconds == pytest.approx(one.seconds)
