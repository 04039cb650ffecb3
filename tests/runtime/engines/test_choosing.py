"""From a bundle to a session; what every session does is in `session_contract.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sshr_deploy.bundle import load_bundle
from sshr_deploy.errors import SessionError, UsageError
from sshr_deploy.runtime.contract import CamBatch, checked_cams
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.engines.kinds import ENGINES, KINDS
from tests.runtime.session_contract import noise


def test_unknown_engines_are_refused(small_bundle_dir: Path) -> None:
    with pytest.raises(UsageError, match=f"choose auto, {', '.join(ENGINES)}"):
        open_session(load_bundle(small_bundle_dir), "tensorflow")


def test_auto_takes_what_works_and_says_why_not_the_rest(small_bundle_dir: Path) -> None:
    with open_session(load_bundle(small_bundle_dir)) as session:
        assert session.infer(noise(2)).prob.shape == (2, 3)
        better = ENGINES[: ENGINES.index(session.info.engine)]
        told = {name.partition(" ")[0] for name in session.info.rejected}  # some by precision
        assert told >= set(better)
        assert all(session.info.rejected.values())


@pytest.mark.parametrize("engine", ["onnx-cuda", "onnx-cpu"])
def test_an_engine_of_the_bundle_works_or_says_why_not(small_bundle_dir: Path, engine: str) -> None:
    bundle = load_bundle(small_bundle_dir)
    provider = KINDS[ENGINES.index(engine)].provider
    if provider is not None and provider.name in onnxruntime.get_available_providers():
        with open_session(bundle, engine) as session:
            assert session.info.engine == engine
            assert session.infer(noise(2)).prob.shape == (2, 3)
    else:
        with pytest.raises(SessionError, match=r"GPU|pip install"):
            open_session(bundle, engine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cam_28_2": np.nan}, "NaN or infinite values in cam_28_2"),
        ({"prob": np.inf}, "NaN or infinite values in prob"),
        ({"cam_28_1": -1.0}, "negative values in cam_28_1"),
    ],
)
def test_impossible_outputs_are_errors(change: dict[str, float], message: str) -> None:
    cam = (2, 3, 28, 28)
    outputs: dict[str, Any] = {
        name: np.full((2, 3) if name == "prob" else cam, change.get(name, 0.5), np.float32)
        for name in ("cam_28_1", "cam_28_2", "cam_deep", "prob")
    }
    with pytest.raises(SessionError, match=message):
        checked_cams(CamBatch(**outputs), 2)


def test_outputs_for_another_number_of_patches_are_an_error() -> None:
    cam, prob = np.ones((2, 3, 28, 28), np.float32), np.ones((2, 3), np.float32)
    batch = CamBatch(cam, cam, cam, prob)
    assert checked_cams(batch, 2) is batch
    with pytest.raises(SessionError, match="2 cam_28_1 for 3 patches"):
        checked_cams(batch, 3)


def test_opening_a_bundle_imports_no_torch(small_bundle_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sshr_deploy.bundle import load_bundle\n"
        "from sshr_deploy.runtime.engines.choosing import open_session\n"
        "open_session(load_bundle(Path(sys.argv[1])), 'onnx-cpu').close()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(small_bundle_dir)], check=True)
