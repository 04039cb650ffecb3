"""The full-size network against the authors' numbers: PyTorch, and the exported graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.bundle import load_bundle
from sshr_deploy.export.bundle_from_checkpoint import export_bundle
from sshr_deploy.export.reference_from_checkpoint import PatchSet, torch_cams
from sshr_deploy.model import SSHR
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.masks import gate, reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.qualification import relative_rms_error
from sshr_deploy.runtime.sessions import CAM_NAMES, CamBatch, Session, open_session

Infer = Callable[[NDArray[np.uint8]], CamBatch]
CAM_TOLERANCE = 1e-4
MASK_AGREEMENT = 0.9995
GATE_FILES = {
    0.2: "official_inference",
    0.5: "official_inference_gate_0.5",
    0.8: "official_inference_gate_0.8",
}


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[float, dict[str, NDArray[Any]]]:
    return {
        threshold: dict(np.load(golden_dir / f"{name}.npz"))
        for threshold, name in GATE_FILES.items()
    }


@pytest.fixture(scope="module")
def model(seeded_checkpoint: Path) -> SSHR:
    return load_checkpoint(seeded_checkpoint)


@pytest.fixture(scope="module")
def session(
    seeded_checkpoint: Path,
    golden: dict[float, dict[str, NDArray[Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Session]:
    out = tmp_path_factory.mktemp("full") / "bundle"
    one_patch = PatchSet([golden[0.2]["0/original_rgb"]], "golden")
    export_bundle(seeded_checkpoint, load_profile("luad"), out, one_patch)
    with open_session(load_bundle(out), "onnx-cpu") as session:
        yield session


@pytest.mark.parametrize("engine", ["pytorch", "onnx"])
def test_cams_gates_and_masks_are_the_authors(
    engine: str,
    golden: dict[float, dict[str, NDArray[Any]]],
    model: SSHR,
    request: pytest.FixtureRequest,
) -> None:
    infer: Infer = (
        (lambda patches: torch_cams(model, patches))
        if engine == "pytorch"
        else request.getfixturevalue("session").infer
    )
    reference = golden[0.2]
    compared = 0
    for i in range(6):
        original = reference[f"{i}/original_rgb"]
        patch = resize_to_patch(original)
        assert np.array_equal(patch, reference[f"{i}/input_rgb_224"])
        cams = infer(patch[None])
        for name in CAM_NAMES:
            assert (
                relative_rms_error(getattr(cams, name)[0], reference[f"{i}/{name}"])
                <= CAM_TOLERANCE
            )
        np.testing.assert_allclose(cams.prob[0], reference[f"{i}/prob"], atol=1e-5)
        for threshold, file in golden.items():
            if f"{i}/mask" in file:
                _compare(cams, threshold, file[f"{i}/mask"], file[f"{i}/label"])
                compared += 1
    assert compared == 6 + 6 + 2


def _compare(
    cams: CamBatch, threshold: float, mask: NDArray[np.uint8], label: NDArray[np.uint8]
) -> None:
    assert np.array_equal(gate(cams.prob[0], threshold), label.astype(bool))
    got = reference_mask(
        cams,
        0,
        load_profile("luad").model_copy(update={"gate_threshold": threshold}),
        height_px=mask.shape[0],
        width_px=mask.shape[1],
    )
    assert (got == mask).mean() >= MASK_AGREEMENT
