"""One graph for fields of many sides, against PyTorch at each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sshr_deploy.errors import SessionError
from sshr_deploy.export.graph.onnx_from_network import write_onnx
from sshr_deploy.geometry import Geometry
from sshr_deploy.model import SSHR, Inference, ModelConfig
from sshr_deploy.runtime.contract import OUTPUT_NAMES
from sshr_deploy.runtime.sessions.onnxruntime.session import OnnxRuntimeSession
from sshr_deploy.runtime.sessions.openvino import OpenVinoSession
from sshr_deploy.runtime.sessions.pytorch import PyTorchSession

FIELD = Geometry(448, 56)
SIDES = [(448, 448), (224, 336), (336, 224)]


@pytest.fixture(scope="module")
def model() -> SSHR:
    torch.manual_seed(0)
    network = SSHR(ModelConfig(width=2, num_classes=3)).eval()
    with torch.no_grad():
        network.hfrm_28_1.gamma_veto.fill_(1.0)
        network.hfrm_28_2.gamma_context.fill_(1.0)
    return network


@pytest.fixture(scope="module")
def graph(model: SSHR, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any_side") / "field.onnx"
    write_onnx(model, path, geometry=FIELD, any_side=True)
    return path


@pytest.mark.parametrize("kind", [OnnxRuntimeSession, OpenVinoSession])
def test_each_side_gives_what_pytorch_gives(
    kind: type[OnnxRuntimeSession | OpenVinoSession], model: SSHR, graph: Path
) -> None:
    reference = PyTorchSession(Inference(model, FIELD), geometry=FIELD)
    with kind(graph, 3, geometry=FIELD) as session:
        assert session.any_side and reference.any_side
        for seed, sides in enumerate(SIDES):
            fields = np.random.default_rng(seed).integers(0, 256, (1, *sides, 3), np.uint8)
            found, wanted = session.infer(fields), reference.infer(fields)
            for name in OUTPUT_NAMES:
                output = getattr(found, name)
                assert output.shape == (1, 3, *((side - 112) // 8 for side in sides))
                np.testing.assert_allclose(output, getattr(wanted, name), rtol=1e-3, atol=1e-5)


def test_a_larger_field_sees_the_same_where_margins_are_wide(model: SSHR) -> None:
    """What is kept of a trimmed field is what the larger one says there, nearly."""
    session = PyTorchSession(Inference(model, FIELD), geometry=FIELD)
    field = np.random.default_rng(1).integers(0, 256, (1, 448, 448, 3), np.uint8)
    whole, part = session.infer(field), session.infer(field[:, :, :336])
    inner = whole.cam_28_1[..., :, :28]
    error = np.sqrt(np.mean((inner - part.cam_28_1) ** 2) / np.mean(inner**2))
    assert error < 0.05


@pytest.mark.parametrize("sides", [(448, 440), (560, 448), (112, 448)])
def test_other_sides_are_refused(graph: Path, sides: tuple[int, int]) -> None:
    refused = pytest.raises(SessionError, match="a side less by multiples of 112")
    with OnnxRuntimeSession(graph, 3, geometry=FIELD) as session, refused:
        session.infer(np.zeros((1, *sides, 3), np.uint8))


def test_a_graph_of_one_side_takes_no_other(model: SSHR, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "field.onnx", geometry=FIELD)
    with OnnxRuntimeSession(tmp_path / "field.onnx", 3, geometry=FIELD) as session:
        assert not session.any_side
        with pytest.raises(SessionError, match=r"\[B, 448, 448, 3\], not"):
            session.infer(np.zeros((1, 336, 448, 3), np.uint8))
