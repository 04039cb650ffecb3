"""Opens the native TensorRT session on its stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.runtime.contract import PATCH_PX, MaskRule
from sshr_deploy.runtime.engines.kinds import KINDS
from sshr_deploy.runtime.kernels import manifest
from sshr_deploy.runtime.masks import label_map
from sshr_deploy.runtime.sessions.tensorrt.session import TensorRtSession
from tests.runtime.fake_cuda import install_fake_gpu
from tests.runtime.sessions.fake_tensorrt_runtime import FakeTensorRt, fake_tensorrt, network

CLASSES = 3
BATCHES = (1, 4)
LIBRARIES = {kind.name: kind.library for kind in KINDS if kind.library is not None}
"""Of each engine."""
ENGINES = {name: library.module for name, library in LIBRARIES.items()}
"""Module of each engine."""

Opener = Callable[..., TensorRtSession]
"""Takes the engine's bytes, and arguments of the session that differ."""


def install_fake_tensorrt(monkeypatch: pytest.MonkeyPatch, kernels: Path) -> FakeTensorRt:
    """Until the test ends there are a GPU, both libraries and a folder of kernels."""
    shared = FakeTensorRt(install_fake_gpu(monkeypatch))
    for name in ENGINES.values():
        module = fake_tensorrt(shared, is_rtx=name == "tensorrt_rtx")
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(manifest, "default_folder", lambda: kernels)
    return shared


def expected_labels(patches: NDArray[np.uint8], rule: MaskRule) -> NDArray[np.uint8]:
    """Label maps of `network`."""
    cams = network(patches, CLASSES)
    return np.stack(
        [
            label_map(cams, index, rule, height_px=PATCH_PX, width_px=PATCH_PX)
            for index in range(len(cams))
        ]
    )
