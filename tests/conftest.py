from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the GPU tests run where pydantic is not installed
    from sshr_deploy.profiles import Profile

# Read when torch and OpenCV load, so before they do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if importlib.util.find_spec("hypothesis"):  # GPU machines have few packages
    from hypothesis import HealthCheck, settings

    # The same examples everywhere, however slow: a test fails for its code alone.
    settings.register_profile(
        "steady",
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("steady")

ROOT = Path(__file__).resolve().parent.parent
FIELD_PX = 560
"""Side of the fields of the bundles here: four windows, and less than half the usual work."""

HEAVY = (  # files that take longest: one that begins last ends last
    "tests/train/test_official_training.py",  # two threads: not beside another full-size network
    "tests/runtime/kernels/test_hfrm_cam.py",
    "tests/runtime/kernels/test_cam_to_mask.py",
    "tests/export/test_golden.py",
    "tests/cli/test_cli.py",
    "tests/runtime/kernels/test_hfrm_pool.py",
    "tests/train/test_processes.py",
    "tests/train/test_run.py",
    "tests/train/test_kill.py",
    "tests/cli/test_train.py",
    "tests/benchmarks/test_kernels.py",
    "tests/export/int8/test_artifacts.py",
    "tests/export/test_export.py",
    "tests/docs/test_runnable.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Heavy files first; pytest-xdist gives out files in this order (Makefile)."""
    ranks = {ROOT / name: rank for rank, name in enumerate(HEAVY)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def demo_slide() -> Path:
    return ROOT / "demo" / "data" / "CMU-1-Small-Region.svs"


@pytest.fixture(scope="session")
def profile() -> Profile:
    from sshr_deploy.profiles import load_profile

    return load_profile("wsss4luad")


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, profile: Profile) -> Path:
    """Width 2, random weights with a fixed seed, heads large enough that all classes appear."""
    torch = pytest.importorskip("torch")
    from sshr_deploy.model import SSHR, ModelConfig
    from sshr_deploy.model.checkpoint import save_checkpoint

    torch.manual_seed(7)
    model = SSHR(ModelConfig(profile.num_classes, width=2)).eval()
    for hfrm in (model.hfrm_56, model.hfrm_28_1, model.hfrm_28_2):
        torch.nn.init.constant_(hfrm.gamma_veto, 0.7)
        torch.nn.init.constant_(hfrm.gamma_context, 0.9)
    for head in (model.ic1, model.ic2, model.fc8):
        torch.nn.init.normal_(head.weight, std=0.5)
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(model, path, metadata={"trained_on": "nothing, random weights"})
    return path


@pytest.fixture(scope="session")
def own_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path, profile: Profile
) -> Path:
    """`small_checkpoint` with its profile in the header, as training writes it."""
    from sshr_deploy.model.checkpoint import load_checkpoint, save_checkpoint

    path = tmp_path_factory.mktemp("own") / "own.safetensors"
    text = json.dumps(profile.model_dump(mode="json"))
    save_checkpoint(load_checkpoint(small_checkpoint), path, metadata={"profile": text})
    return path


@pytest.fixture(scope="session")
def small_bundle_dir(
    tmp_path_factory: pytest.TempPathFactory, small_checkpoint: Path, profile: Profile
) -> Path:
    """A bundle of `small_checkpoint`; tests that change it copy it first.

    One graph for all engines, as a second one would take seconds.
    """
    from sshr_deploy.export.bundle import export_bundle
    from sshr_deploy.export.graph.deploy import HfrmForm
    from sshr_deploy.export.job import ExportOptions
    from sshr_deploy.export.reference import shipped_patches

    out = tmp_path_factory.mktemp("bundle") / "small"
    options = ExportOptions(form=HfrmForm.DEPTHWISE, field_px=FIELD_PX)
    export_bundle(small_checkpoint, profile, out, shipped_patches(), options)
    return out


@pytest.fixture(scope="session")
def seeded_checkpoint(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published format at full size with seeded weights, as the golden files were made."""
    torch = pytest.importorskip("torch")
    import numpy as np

    spec = importlib.util.spec_from_file_location(
        "seeded_weights", golden_dir / "seeded_weights.py"
    )
    assert spec is not None and spec.loader is not None
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    shapes = json.loads((golden_dir / "state_dict.json").read_text())
    path = tmp_path_factory.mktemp("seeded") / "seeded.pth"
    torch.save(seeded.state_dict(shapes, dict(np.load(golden_dir / "bn_stats.npz")), 0), path)
    return path
