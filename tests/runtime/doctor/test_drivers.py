from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.runtime.doctor.abilities import judge_engines
from sshr_deploy.runtime.doctor.conflicts import find_conflicts
from sshr_deploy.runtime.doctor.drivers import GPU_EXTRA_CUDA, onnxruntime_cuda
from sshr_deploy.runtime.doctor.report import Ability, Answer, Facts, OnnxRuntime
from tests.runtime.doctor.machines import RTX, laptop, with_packages, with_trials, workstation

NEWER = "# install driver 580 or newer: https://www.nvidia.com/drivers"


def _engine(facts: Facts, name: str) -> Ability:
    abilities = judge_engines(facts, find_conflicts(facts))
    return next(ability for ability in abilities if ability.name == name)


def _that_does_not_import(facts: Facts, version: str) -> Facts:
    broken = OnnxRuntime(("onnxruntime-gpu",), None, None, None, (), "no libcublas")
    return replace(with_packages(facts, onnxruntime_gpu=version), onnxruntime=broken)


def test_the_driver_that_onnxruntime_needs_is_named() -> None:
    for name in ("onnx-cuda", "onnx-tensorrt"):
        (note,) = _engine(workstation(), name).notes
        assert note == "onnxruntime-gpu 1.31.1 is built for CUDA 13: it needs driver 580 or newer"
    older = replace(workstation().onnxruntime, version="1.24.4", cuda="12.8")
    (note,) = _engine(replace(workstation(), onnxruntime=older), "onnx-cuda").notes
    assert note == "onnxruntime-gpu 1.24.4 is built for CUDA 12: it needs driver 525 or newer"
    assert _engine(laptop(), "onnx-cuda").notes == ()


@pytest.mark.parametrize(("version", "cuda"), [("1.24.4", 12), ("1.26.0", 12), ("1.31.1", 13)])
def test_one_that_does_not_import_is_known_by_its_version(version: str, cuda: int) -> None:
    facts = _that_does_not_import(workstation(replace(RTX, driver="550.120")), version)
    assert onnxruntime_cuda(facts) == cuda
    untried = replace(facts, trials={"infer": facts.trials["infer"]})
    reasons = [c.reason for c in find_conflicts(untried) if "onnxruntime-gpu" in c.reason]
    assert len(reasons) == (cuda == 13)


def test_an_old_driver_is_told_before_the_package_is_installed() -> None:
    facts = replace(laptop(), gpus=(replace(RTX, driver="550.120"),), no_gpu="")
    (lack,) = _engine(facts, "onnx-cuda").lacks
    assert lack.reason.endswith(
        "has no CUDAExecutionProvider; the one of sshr-deploy[gpu] needs driver 580 or newer, "
        "550.120 is installed: update NVIDIA's driver first"
    )
    assert lack.mend[0] == NEWER
    new_enough = replace(facts, gpus=(RTX,))
    (lack,) = _engine(new_enough, "onnx-cuda").lacks
    assert "driver" not in " ".join((lack.reason, *lack.mend))


@pytest.mark.parametrize(("driver", "first"), [("550.120", (NEWER,)), ("580.65.06", ())])
def test_one_of_an_older_cuda_is_not_replaced_by_one_that_the_driver_cannot_run(
    driver: str, first: tuple[str, ...]
) -> None:
    facts = with_packages(workstation(replace(RTX, driver=driver)), onnxruntime_gpu="1.24.4")
    facts = with_trials(facts, onnx_cuda=Answer({}, "it fell back: libcudnn.so.9: cannot open"))
    cuda_12 = replace(facts.onnxruntime, version="1.24.4", cuda="12.8")
    (lack,) = _engine(replace(facts, onnxruntime=cuda_12), "onnx-cuda").lacks
    assert lack.mend[:-1] == (*first, "pip install 'sshr-deploy[gpu]'")
    assert ("needs driver 580 or newer" in lack.reason) == bool(first)


@pytest.mark.parametrize(
    ("sm", "driver", "told"),
    [
        (120, "570.86.10", True),
        (100, "570.86.10", True),
        (120, "575.51", False),
        (89, "570", False),
    ],
)
def test_the_kernels_of_new_gpus_need_the_driver_of_cuda_12_9(
    sm: int, driver: str, told: bool
) -> None:
    facts = workstation(replace(RTX, sm=sm, driver=driver))
    found = [c for c in find_conflicts(facts) if c.name == "old-driver-for-kernels"]
    assert len(found) == told
    for conflict in found:
        assert "are assembled by CUDA 12.9, which needs driver 575 or newer" in conflict.reason
        assert conflict.breaks == ()
        assert conflict.mend == (NEWER.replace("580", "575"),)


def test_the_gpu_extra_is_bounded_to_one_cuda(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))
    gpu = project["project"]["optional-dependencies"]["gpu"]
    bounds = dict(re.split(r"(?=>=)", item, maxsplit=1) for item in gpu)
    assert bounds["nvidia-cuda-runtime"] == f">={GPU_EXTRA_CUDA},<{GPU_EXTRA_CUDA + 1}"
    least = tuple(map(int, bounds["onnxruntime-gpu[cuda,cudnn]"].removeprefix(">=").split(".")))
    assert least >= (1, 28), "1.27 asks for packages that have no such release"
