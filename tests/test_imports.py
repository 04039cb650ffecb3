"""What an import needs and costs; directions between the parts are checked by `lint-imports`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "cv2", "PIL", "openslide", "tifffile")

# Run in a fresh interpreter: None in sys.modules makes an import fail as if nothing were there.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("torch", "onnx", "onnxscript", "safetensors", "triton"):
    sys.modules[name] = None
import sshr_deploy
skipped = {f"sshr_deploy.{part}" for part in ("train", "export", "model", "benchmarks", "__main__")}
kernels = "sshr_deploy.runtime.kernels."
skipped |= {f"{kernels}building.{part}" for part in ("arguments", "interpreter", "jit")}
skipped.add("sshr_deploy.runtime.sessions.pytorch")
for op in ("hfrm_cam", "hfrm_pool", "cam_to_mask"):
    skipped |= {f"{kernels}{op}.{part}" for part in ("naive", "op", "triton")}
queue, seen = ["sshr_deploy"], []
while queue:
    module = importlib.import_module(queue.pop())
    seen.append(module.__name__)
    for info in pkgutil.iter_modules(getattr(module, "__path__", []), module.__name__ + "."):
        if info.name not in skipped:
            queue.append(info.name)
print(*seen)
"""

IMPORT_CLI = f"""
import sys
import sshr_deploy.cli
print(*sorted(set({HEAVY!r}) & sys.modules.keys()))
"""


def run(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_runtime_and_cli_import_without_torch(repo_root: Path) -> None:
    done = run(IMPORT_ALL, repo_root)
    assert done.returncode == 0, done.stderr
    assert {
        "sshr_deploy.runtime.cuda.base",
        "sshr_deploy.runtime.kernels.hfrm_cam.plan",
        "sshr_deploy.runtime.kernels.building.build",
        "sshr_deploy.cli",
    } <= set(done.stdout.split())


def test_command_line_loads_nothing_heavy(repo_root: Path) -> None:
    done = run(IMPORT_CLI, repo_root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
