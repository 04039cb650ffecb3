"""What a user would run instead, on real parts."""

from __future__ import annotations

import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sshr_deploy.benchmarks.contenders import peers as module
from sshr_deploy.benchmarks.contenders import torch_peers
from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged, reference_of
from sshr_deploy.benchmarks.contenders.parts import parts_of_call
from sshr_deploy.benchmarks.contenders.peers import peers, peers_left_out
from sshr_deploy.benchmarks.contenders.plain_sessions import PlainOnnxSession
from sshr_deploy.benchmarks.contenders.torch_peers import Published
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import CheckpointError, SessionError, UsageError
from sshr_deploy.geometry import PATCH
from sshr_deploy.model import predict
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.machine import threads
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.sessions.openvino import computes

TORCH = (
    "PyTorch eager",
    "PyTorch channels_last",
    "PyTorch compiled",
    "PyTorch autocast bf16",
    "PyTorch published forward",
)
_BY_OPENVINO = f"plain OpenVINO {'bf16' if computes(Precision.BF16) else 'fp32'}"
PLAIN = ("plain ONNX Runtime fp32", *([_BY_OPENVINO] if find_spec("openvino") else []))


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture
def found(bundle: Bundle, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(threads, "_in_use", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "find_gpus", tuple)
    return {contender.name: contender for contender in peers(bundle, small_checkpoint)}


def test_there_are_those_that_run_here(found: dict[str, Contender], bundle: Bundle) -> None:
    assert tuple(found) == (*TORCH, *PLAIN)
    assert all(contender.is_peer and contender.about for contender in found.values())
    assert tuple(contender.name for contender in peers(bundle, None)) == PLAIN


@pytest.mark.parametrize("name", [*TORCH, *PLAIN])
def test_each_runs_the_same_weights(
    found: dict[str, Contender], bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real tracing of the module, without code generation, which takes minutes.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    patches = reference_of(bundle).patches[:1]
    with found[name].open(2) as session:
        agreement = judged(session, found[name], bundle)
        assert agreement.masks > 0.97
        if found[name].precision is Precision.FP32:
            assert agreement.misses == ()
        parts = parts_of_call(session, patches, mask_rule(bundle.manifest.profile))
        assert min(parts.copy_in_ms, parts.engine_ms, parts.copy_out_ms, parts.labels_ms) > 0
    with pytest.raises(SessionError, match="closed"):
        session.infer(patches)


def test_the_published_forward_takes_one_patch_a_call(small_checkpoint: Path) -> None:
    model = load_checkpoint(small_checkpoint)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    patches = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        got = Published(model)(torch.tensor(patches))
    assert sizes == [1, 1, 1]
    for output, wanted in zip(got, predict(model, patches), strict=True):
        np.testing.assert_allclose(output.numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_with_a_gpu_pytorch_runs_there_in_more_ways(
    bundle: Bundle, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "find_gpus", lambda: ("a card",))
    found = {contender.name: contender for contender in peers(bundle, small_checkpoint)}
    assert {*TORCH, "PyTorch autocast fp16", "PyTorch CUDA graph"} < set(found)
    assert found["PyTorch eager"].about.endswith("on the GPU")
    assert {name for name, way in found.items() if not way.on_gpu} == set(PLAIN)
    cuda = found["plain ONNX Runtime CUDA fp32"]
    assert cuda.about.endswith("which take TF32") and cuda.tolerance.cam_relative_error is None
    with pytest.raises(SessionError, match="this onnxruntime has no CUDAExecutionProvider"):
        cuda.open(1)


def test_openvino_takes_bf16_by_itself_where_the_processor_has_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "computes", lambda _: True)
    monkeypatch.setattr(module, "find_spec", lambda _: "there")
    found = {contender.name: contender for contender in peers(bundle, None)}
    assert found["plain OpenVINO bf16"].precision is Precision.BF16
    assert "BF16" in found["plain OpenVINO bf16"].about


def test_another_checkpoint_is_refused(
    bundle: Bundle, own_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"is not the checkpoint that .* was exported from"):
        peers(bundle, own_checkpoint)
    with pytest.raises(CheckpointError, match="No such file"):
        peers(bundle, tmp_path / "none.safetensors")


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches * self.weight


def test_a_compiler_that_fails_is_told_when_it_is_opened(
    found: dict[str, Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    monkeypatch.setattr(torch_peers, "Inference", lambda *_: Small())
    with pytest.raises(
        SessionError, match=r"^torch.compile does not work here: no C\+\+ compiler$"
    ):
        found["PyTorch compiled"].open(1)


def test_a_gpu_without_memory_is_told_when_it_is_opened(
    found: dict[str, Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(SessionError, match=r"^PyTorch failed: CUDA out of memory"):
        found["PyTorch eager"].open(1)


def test_peers_that_are_not_there_are_told(
    bundle: Bundle, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_gpus", lambda: ("a card",))
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    told = peers_left_out(bundle, None)
    assert told is not None and "PyTorch: it needs the checkpoint" in told
    assert "openvino is not installed: pip install 'sshr-deploy[openvino]'" in told
    monkeypatch.setattr(module, "find_gpus", tuple)
    monkeypatch.setattr(module, "find_spec", lambda _: "there")
    assert peers_left_out(bundle, small_checkpoint) is None


def test_a_graph_that_is_none_is_one_line(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(SessionError, match="onnxruntime cannot open ") as caught:
        PlainOnnxSession(graph, Precision.FP32, PATCH)
    assert "\n" not in str(caught.value)
