"""What is timed on a GPU is what was meant: its inputs are there, and its results are right."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sshr_deploy.benchmarks import kernels
from sshr_deploy.benchmarks.gpu import kernel_configs
from sshr_deploy.benchmarks.measuring.gpu_timing import (
    Replay,
    alternate_checked,
    autotuned,
    check_context,
)
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.kernels.hfrm_cam.plan import Config
from tests.benchmarks.fake_cuda_graph import FakeGraph, install_fake_graphs


@pytest.fixture(autouse=True)
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_graphs(monkeypatch)


def doubling(size: int = 3) -> Replay:
    """Of inputs that are this function's own."""
    return Replay([partial(torch.mul, torch.full((size,), float(i)), 2.0) for i in range(2)])


def test_inputs_live_as_long_as_the_graph() -> None:
    replay = doubling()
    gc.collect()
    replay.poison()
    assert all(result.isnan().all() for result in replay.results)
    replay()
    assert [result.tolist() for result in replay.results] == [[0.0] * 3, [2.0] * 3]


def test_results_of_every_kind_are_poisoned() -> None:
    replay = Replay([lambda: (torch.zeros(2), torch.zeros(2, dtype=torch.uint8))])
    replay.poison()
    floats, labels = replay.results[0]
    assert floats.isnan().all()
    assert labels.tolist() == [255, 255]


def refuse_unless(expected: float) -> Callable[[str, Sequence[Tensor]], None]:
    def check(name: str, results: Sequence[Tensor]) -> None:
        if not torch.equal(results[1], torch.full((3,), expected)):
            raise SshrDeployError(f"{name} is wrong")

    return check


def test_right_results_are_timed() -> None:
    samples, wrong = alternate_checked({"a": doubling()}, 0.0, refuse_unless(2.0), divisor=2)
    assert wrong == {}
    assert samples == {"a": [0.5] * 10}


def test_a_graph_that_does_nothing_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGraph, "replay", lambda self: None)
    samples, wrong = alternate_checked({"a": doubling()}, 0.0, refuse_unless(2.0))
    assert samples == {}
    assert wrong == {"a": "after the timing: a is wrong"}


SIZE: dict[str, Any] = {
    "device": torch.device("cpu"),
    "batches": (2,),
    "seconds": 0.0,
    "on_step": lambda text: None,
}


def measured() -> list[dict[str, Any]]:
    report = kernels.measure_kernels(
        **SIZE, shapes=((8, 6, 5),), dtypes=("fp16",), forms=("separable", "plain")
    )
    rows: list[dict[str, Any]] = report["rows"]
    return rows


def test_kernels_are_timed_on_inputs_that_are_there() -> None:
    for row in measured():
        assert row["median_ms"] == 0.5, row  # of 1 ms for two sets of inputs


def test_kernels_that_turn_wrong_in_replays_are_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = FakeGraph._again

    def drifting(func: Any, held: Any, out: Tensor) -> None:
        again(func, held, out)
        out.mul_(1.1)

    monkeypatch.setattr(FakeGraph, "_again", staticmethod(drifting))
    for row in measured():
        assert row["failed"].startswith(
            f"after the timing: {row['form']} on a map of [6, 5] is off"
        )
        assert "median_ms" not in row


def test_configs_are_timed_on_inputs_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(feature: Tensor, gate: Tensor, head: Tensor, *rest: object) -> Tensor:
        return feature.sum(1, keepdim=True) * head.sum() + gate.sum()

    monkeypatch.setattr(kernel_configs, "run", run)
    monkeypatch.setattr(kernel_configs, "checked", lambda *arguments: 0.0)
    monkeypatch.setattr(kernel_configs, "check_results", lambda *arguments, **named: None)
    configs = (Config(1, 32, 16, 4, 1), Config(2, 64, 16, 4, 1))
    rows = kernel_configs.measure_configs(**SIZE, shape=(8, 6, 5), configs=configs)
    assert [row["median_ms"] for row in rows] == [0.5, 0.5]


def test_a_lost_context_ends_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    check_context("plain")
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(SshrDeployError, match=r"^fused broke the CUDA context.*memory access was"):
        check_context("fused")


def test_autotuning_ends_with_its_block() -> None:
    before = torch.backends.cudnn.benchmark
    with autotuned():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
