from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sshr_deploy.errors import SessionError
from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.model import SSHR, predict
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.runtime.contract import CamBatch, Session
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession
from sshr_deploy.train.model_session import ModelSession
from tests.gpu_here import torch_has_a_gpu
from tests.runtime.session_contract import Patches, SessionContract, Subject, check_close, noise

on_a_gpu = pytest.mark.skipif(not torch_has_a_gpu(), reason="needs an NVIDIA GPU")


@pytest.fixture(scope="module")
def model(small_checkpoint: Path) -> SSHR:
    return load_checkpoint(small_checkpoint)


@pytest.fixture(scope="module")
def graph(model: SSHR) -> DeployGraph:
    """Another form of HFRM than the reference's; on the GPU where there is one."""
    device = "cuda" if torch_has_a_gpu() else "cpu"
    return DeployGraph(copy.deepcopy(model).to(device), HfrmForm.DEPTHWISE)


class Small(torch.nn.Module):
    """No network, but what goes in and out is right."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        blocks = patches.float().mul(self.weight).reshape(-1, 28, 8, 28, 8, 3)
        cam = blocks.mean((2, 4)).permute(0, 3, 1, 2)
        return cam, cam + 1, cam + 2, cam.mean((2, 3)) / 256


def _expected(model: SSHR, patches: Patches) -> CamBatch:
    return CamBatch(*predict(model, patches))


def _subject(model: SSHR, opened: Callable[[], Session], engine: str) -> Subject:
    return Subject(
        open=opened,
        expected=lambda patches: _expected(model, patches),
        engine=engine,
        classes=model.config.num_classes,
    )


class TestEager(SessionContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, model: SSHR, graph: DeployGraph) -> Subject:
        device = next(graph.parameters()).device.type
        return _subject(model, lambda: PyTorchSession(graph), f"pytorch-{device}")


class TestCompiled(SessionContract):
    """With the real tracing of the module, without code generation, which takes minutes."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, model: SSHR, graph: DeployGraph) -> Subject:
        device = next(graph.parameters()).device.type
        return _subject(
            model,
            lambda: PyTorchSession(graph, mode="compiled", batch=4, backend="eager"),
            f"pytorch-{device}-compiled",
        )


@on_a_gpu
class TestCudaGraph(SessionContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, model: SSHR, graph: DeployGraph) -> Subject:
        return _subject(
            model,
            lambda: PyTorchSession(graph, mode="cuda-graph", batch=4),
            "pytorch-cuda-graph",
        )


class TestModelSession(SessionContract):
    """The session of training and of checkpoints under `sshr-deploy evaluate`."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, model: SSHR) -> Subject:
        return _subject(model, lambda: ModelSession(copy.deepcopy(model)), "pytorch-cpu")


def test_one_compilation_serves_all_batches() -> None:
    compiled = []

    def backend(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        compiled.append([tuple(x.shape) for x in inputs if x.ndim == 4])
        return module.forward

    module = Small()
    with (
        PyTorchSession(module, mode="compiled", batch=3, backend=backend) as session,
        PyTorchSession(module) as eager,
    ):
        for batch in (1, 3, 7):
            found, expected = session.infer(noise(batch)), eager.infer(noise(batch))
            assert np.array_equal(found.cam_deep, expected.cam_deep)
    assert compiled == [[(3, 224, 224, 3)]]


def test_a_network_in_training_is_put_into_evaluation_mode(model: SSHR) -> None:
    training = copy.deepcopy(model).train()
    with ModelSession(training) as session:
        check_close(session.infer(noise(2)), _expected(model, noise(2)), 1e-6, 1e-6)


def test_a_cuda_graph_without_a_gpu_is_refused(model: SSHR) -> None:
    graph = DeployGraph(model, HfrmForm.PLAIN)
    with pytest.raises(SessionError, match="needs the network on an NVIDIA GPU, it is on the cpu"):
        PyTorchSession(graph, mode="cuda-graph")


def test_a_compiler_that_fails_is_an_error_at_once() -> None:
    def broken(module: object, inputs: object) -> object:
        raise RuntimeError("no C++ compiler\nand more")

    with pytest.raises(SessionError, match=r"compiled does not work here: .*no C\+\+ compiler$"):
        PyTorchSession(Small(), mode="compiled", batch=1, backend=broken)


def test_an_error_of_the_module_is_a_session_error() -> None:
    class Full(Small):
        def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
            raise torch.OutOfMemoryError("out of memory\nTried to allocate all")

    with (
        PyTorchSession(Full()) as session,
        pytest.raises(SessionError, match=r"torch .* failed: out of memory$"),
    ):
        session.infer(noise(1))


def test_nan_is_an_error(model: SSHR) -> None:
    broken = copy.deepcopy(model)
    torch.nn.init.constant_(broken.ic1.weight, float("nan"))
    with ModelSession(broken) as session, pytest.raises(SessionError, match="NaN or infinite"):
        session.infer(noise(1))


def test_precision_is_told() -> None:
    assert PyTorchSession(Small(), precision="fp16").info.precision == "fp16"


def test_tf32_is_off_while_it_runs() -> None:
    class Looking(Small):
        def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
            assert not torch.backends.cudnn.allow_tf32
            return super().forward(patches)

    assert torch.backends.cudnn.allow_tf32, "PyTorch's default"
    PyTorchSession(Looking()).infer(noise(1))
    assert torch.backends.cudnn.allow_tf32, "the caller's setting is back"
