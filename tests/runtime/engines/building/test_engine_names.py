"""What the builder of engines uses of the library is in both releases, without precision flags.

`test_tensorrt_names.py` reads names that begin with the module; these begin with its objects.
"""

from __future__ import annotations

import ast
import json
from enum import Enum
from pathlib import Path

from tests.runtime.engines.building import fake_tensorrt_builder as fake

VARIABLES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "_config": "IBuilderConfig",
    "inspector": "EngineInspector",
    "monitor": "IProgressMonitor",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "trial": "OnnxParser",
}
"""Of the code, by what they hold."""
STAND_INS = {
    "Network": "INetworkDefinition",
    "Profile": "IOptimizationProfile",
    "Severity": "ILogger",
    "Tensor": "ITensor",
    "Layer": "ILayer",
}


def names_of_code(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            held = VARIABLES.get(ast.unparse(node.value).rpartition(".")[2])
            found |= {f"{held}.{node.attr}"} if held else set()
    return found - {"IProgressMonitor.error"}  # of our own


def names_of_stand_in() -> set[str]:
    """Methods and class attributes, all of which the code may have come to use."""
    return {
        f"{STAND_INS.get(owner.__name__, owner.__name__)}.{name}"
        for owner in vars(fake).values()
        if isinstance(owner, type) and owner.__module__ == fake.__name__ and owner is not fake.World
        for name in (owner.__members__ if issubclass(owner, Enum) else vars(owner))
        if not name.startswith("_")
    }


def test_names_exist_in_both_releases(repo_root: Path, golden_dir: Path) -> None:
    releases = json.loads((golden_dir / "tensorrt_names.json").read_text())
    used = set().union(*map(names_of_code, (repo_root / "runtime/engines/building").glob("*.py")))
    assert {"IBuilderConfig.progress_monitor", "Runtime.engine_host_code_allowed"} <= used
    stand_in = names_of_stand_in()
    assert {"Builder.create_network", "BuilderFlag.TF32", "ILayer.num_inputs"} <= stand_in
    for release in releases.values():
        assert used | stand_in <= set(release["tensorrt"])


def test_no_precision_flag_anywhere(repo_root: Path) -> None:
    """TensorRT 11 silently built FP32 where a flag asked for FP16: only the graph decides."""
    found = []
    seen = 0
    for folder in ("sshr_deploy", "export", "runtime", "train", "benchmarks", "demo"):
        for path in (repo_root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and "BuilderFlag" in ast.unparse(node.value):
                    seen += 1
                    if node.attr not in {"TF32", "VERSION_COMPATIBLE", "REQUIRE_USER_ALLOCATION"}:
                        found.append(f"{path}: {node.attr}")
    assert not found
    assert seen >= 2
