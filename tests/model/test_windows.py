"""Windows on a field against a loop over them, and a field of one window against a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from sshr_deploy.export.graph.deploy import DeployGraph, HfrmForm
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.model import SSHR, Inference, ModelConfig, predict
from sshr_deploy.model.windows import Windows

FIELD = Geometry(side_px=448, margin_px=56)


@dataclass(frozen=True)
class OneWindow(Geometry):
    """A field of one window, computed by the way of fields."""

    @property
    def is_patch(self) -> bool:
        return False


@pytest.fixture(scope="module")
def model() -> SSHR:
    torch.manual_seed(3)
    network = SSHR(ModelConfig(width=2, num_classes=3)).eval()
    with torch.no_grad():
        for hfrm in (network.hfrm_28_1, network.hfrm_28_2):
            hfrm.gamma_veto.fill_(1.5)
            hfrm.gamma_context.fill_(0.7)
            for parameter in hfrm.veto_mlp.parameters():
                parameter.normal_()
    return network


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 256, (1, 28, 28, 3), np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)


def centres(geometry: Geometry) -> list[float]:
    starts = range(0, geometry.cells - geometry.window_cells + 1, geometry.stride_cells)
    return [start + geometry.window_cells / 2 for start in starts]


def test_means_are_those_of_each_window() -> None:
    values = torch.randn(2, 3, 56, 56)
    means = Windows(FIELD).means(values)
    assert means.shape == (2, 3, 3, 3)
    for row, column in [(0, 0), (2, 2), (2, 1)]:
        window = values[:, :, 14 * row : 14 * row + 28, 14 * column : 14 * column + 28]
        torch.testing.assert_close(means[:, :, row, column], window.mean((2, 3)))


@pytest.mark.parametrize(("window", "stride"), [(28, 14), (28, 28), (42, 14), (21, 7)])
def test_spread_interpolates_between_the_centres(window: int, stride: int) -> None:
    geometry = Geometry(896, 0, window, stride)
    places = centres(geometry)
    values = torch.randn(1, 2, len(places), len(places))
    spread = Windows(geometry).spread(values)
    np.testing.assert_allclose(spread, _interpolated(values, places, geometry), atol=1e-5)


def test_what_is_linear_over_the_windows_stays_so() -> None:
    windows = Windows(FIELD)
    places = torch.tensor(centres(FIELD))
    plane = (2 * places[:, None] - 3 * places[None])[None, None]
    spread = windows.spread(plane)
    cells = (torch.arange(56) + 0.5).clamp(places[0], places[-1])
    torch.testing.assert_close(spread[0, 0], 2 * cells[:, None] - 3 * cells[None])


@pytest.mark.parametrize("form", [f for f in HfrmForm if f is not HfrmForm.FUSED])
def test_a_field_of_one_window_is_the_published_network(
    model: SSHR, field: np.ndarray, form: HfrmForm
) -> None:
    patches = torch.tensor(field[:, :224, :224])
    with torch.inference_mode():
        expected = Inference(model)(patches)
        *cams, prob = DeployGraph(model, form, OneWindow())(patches)
    assert prob.shape == (1, 3, 28, 28)
    for got, wanted in zip(cams, expected, strict=False):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prob, expected[3][:, :, None, None].expand_as(prob))


def test_a_field_is_the_formula_cell_by_cell(model: SSHR, field: np.ndarray) -> None:
    """At windows' centres nothing is interpolated: all is as with that window's context."""
    found = predict(model, field, FIELD)
    with torch.inference_mode():
        f = model.features(Inference(model).normalised(torch.tensor(field)))
        deep = model.fc8(f.deep)
        # Centres lie on cells' edges: the mean of the cells around is that of the corner.
        for row, column in [(1, 1), (2, 1)]:
            window = (..., slice(14 * row, 14 * row + 28), slice(14 * column, 14 * column + 28))
            prob = torch.sigmoid(deep[window].mean((2, 3)))[0]
            y, x = 14 * row + 14 - 7, 14 * column + 14 - 7  # on the core
            around = torch.logit(torch.tensor(found.prob[0, :, y - 1 : y + 1, x - 1 : x + 1]))
            # Two straight lines meet there, so that the mean is off by their change of slope.
            torch.testing.assert_close(torch.sigmoid(around.mean((1, 2))), prob, atol=0.02, rtol=0)


def test_gates_of_a_field_rectify_each_cell_by_its_own(model: SSHR, field: np.ndarray) -> None:
    geometry, hfrm, head = FIELD, model.hfrm_28_1, model.ic1
    with torch.inference_mode():
        network = Inference(model, geometry)
        f = model.features(network.normalised(torch.tensor(field)))
        contexts = network.windows.means(f.deep)
        gates = torch.stack(
            [hfrm.gate(contexts[:, :, r, c]) for r in range(3) for c in range(3)], -1
        ).reshape(1, -1, 3, 3)
        at_cells = _interpolated(gates, centres(geometry), geometry)
        rectified = f.f28_1 * at_cells + hfrm.gamma_context * hfrm.context_conv(f.f28_1)
        expected = torch.relu(head(rectified))[:, :, 7:-7, 7:-7]
    found = predict(model, field, geometry)
    np.testing.assert_allclose(found.cam_28_1, expected.numpy(), rtol=1e-3, atol=1e-4)


def _interpolated(gates: Tensor, places: list[float], geometry: Geometry) -> Tensor:
    cells = np.arange(geometry.cells) + 0.5
    values = gates.numpy()
    rows = np.apply_along_axis(lambda v: np.interp(cells, places, v), 2, values)
    both = np.apply_along_axis(lambda v: np.interp(cells, places, v), 3, rows)
    return torch.tensor(both, dtype=torch.float32)


def test_the_forms_agree_on_fields(model: SSHR, field: np.ndarray) -> None:
    expected = predict(model, field, FIELD)
    for form in (HfrmForm.DEPTHWISE, HfrmForm.SEPARABLE):
        with torch.inference_mode():
            outputs = DeployGraph(model, form, FIELD)(torch.tensor(field))
        for got, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_the_fused_kernel_is_for_patches(model: SSHR) -> None:
    with pytest.raises(ValueError, match="one gate a patch"):
        DeployGraph(model, HfrmForm.FUSED, FIELD)


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ({"side_px": 230}, "side_px is 230"),
        ({"side_px": 0}, "side_px is 0"),
        ({"side_px": 448, "margin_px": 60}, "margin_px is 60"),
        ({"side_px": 448, "margin_px": 224}, "leaves nothing"),
        ({"window_cells": 35}, "no window of 35"),
        ({"side_px": 280}, "must be 224 px and any multiple of 112"),
        ({"side_px": 280, "stride_cells": 7}, "must be even"),
        ({"side_px": 504, "stride_cells": 35}, "not negative"),
        ({"side_px": 112_000}, "above"),
    ],
)
def test_impossible_geometries_are_refused(sides: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Geometry(**sides)


def test_geometry_of_a_patch_and_of_a_field() -> None:
    assert PATCH.is_patch and PATCH.windows == 1 and PATCH.work == 1
    assert (FIELD.cells, FIELD.core_cells, FIELD.windows, FIELD.core_px) == (56, 42, 3, 336)
    assert FIELD.cam_shape(3) == FIELD.prob_shape(3) == (3, 42, 42)
    assert PATCH.prob_shape(3) == (3,)
    fitting = [side for side in range(8, 600, 8) if FIELD.fits(side)]
    assert fitting == [224, 336, 448]
