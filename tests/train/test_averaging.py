"""The average of the weights: its formula, and that a resumed run has the same one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sshr_deploy.errors import TrainingError
from sshr_deploy.model import SSHR, ModelConfig
from sshr_deploy.model.batch_norms import batch_norms
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.train.averaging import begin_average, update_average
from sshr_deploy.train.run import train
from sshr_deploy.train.run_checkpoint import BEST_NAME, LAST_NAME
from tests.train.watching import SGD, STEPS_PER_EPOCH, Watcher, make_job

pytestmark = pytest.mark.usefixtures("one_thread", "without_pictures")

AVERAGED = replace(SGD, average_weights=0.9)
TRAINED = "resume/trained/"


def test_it_is_the_exponential_mean_of_the_steps() -> None:
    model = SSHR(ModelConfig(2, 1))
    average = begin_average(model)
    expected = model.fc8.weight.detach().double()
    for steps in range(1, 40):
        torch.nn.init.constant_(model.fc8.weight, steps)
        decay = min(0.75, (1 + steps) / (10 + steps))
        expected = decay * expected + (1 - decay) * steps
        for norm in batch_norms(model).values():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
        update_average(average, model, 0.75, steps)
    torch.testing.assert_close(average.fc8.weight.double(), expected, rtol=1e-5, atol=1e-5)
    assert {int(n.num_batches_tracked or 0) for n in batch_norms(average).values()} == {39}
    assert torch.equal(average.conv1a.weight, model.conv1a.weight)  # what stays, stays to the bit
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_interrupted_and_resumed_has_the_same_average(dataset: Path, tmp_path: Path) -> None:
    whole, job = tmp_path / "whole", make_job(dataset, tmp_path / "run", AVERAGED)
    train(replace(job, out=whole), Watcher())
    for step in (2, STEPS_PER_EPOCH - 1):  # in the first epoch, and in the second
        assert train(job, Watcher(interrupt_after=step)).interrupted
        job = replace(job, resume=True)
    train(job, Watcher())
    for name in (LAST_NAME, BEST_NAME):
        found, expected = load_file(job.out / name), load_file(whole / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key != "resume/meter":  # with times
                assert torch.equal(found[key], value), key


def test_checkpoints_give_the_average_and_the_run_goes_on_from_the_weights(
    dataset: Path, tmp_path: Path
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "run"
    train(make_job(dataset, plain, SGD), Watcher())
    train(make_job(dataset, out, AVERAGED), Watcher())
    trained = {
        name.removeprefix(TRAINED): value
        for name, value in load_file(out / LAST_NAME).items()
        if name.startswith(TRAINED)
    }
    of_plain = load_checkpoint(plain / LAST_NAME)
    given = load_checkpoint(out / LAST_NAME).state_dict()
    assert trained.keys() == given.keys()
    for name, parameter in of_plain.named_parameters():  # the average changes nothing in training
        assert torch.equal(trained[name], parameter), name
    assert not torch.equal(given["fc8.weight"], of_plain.fc8.weight)
    with pytest.raises(TrainingError, match="another recipe"):
        train(make_job(dataset, out, SGD, resume=True), Watcher())
