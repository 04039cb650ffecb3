"""Every TensorRT name that the project uses exists in TensorRT 10.16 and in 11.4."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("sshr_deploy", "train", "export", "runtime", "benchmarks", "demo")
PLUGIN = ROOT / "export" / "tensorrt_plugin.py"
CONVENTION = {"trt": "tensorrt", "trtp": "tensorrt.plugin"}
"""What these two names stand for in every file, however they were imported."""
DESCRIPTORS = {"feature", "gate", "head", "context", "bias", "tensor"}
"""Variables of the plugin that hold a `TensorDesc`."""

Names = dict[str, set[str]]


@pytest.fixture(scope="module")
def versions() -> dict[str, Names]:
    text = (ROOT / "tests" / "golden" / "tensorrt_names.json").read_text()
    return {
        version: {module: set(names) for module, names in modules.items()}
        for version, modules in json.loads(text).items()
    }


def chain(node: ast.expr) -> list[str]:
    """a.b.c as its names; empty where it does not start with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def aliases(tree: ast.Module) -> dict[str, str]:
    found = dict(CONVENTION)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                if item.name in CONVENTION.values() and item.asname:
                    found[item.asname] = item.name
                elif item.name.split(".")[0] == "tensorrt":
                    found["tensorrt"] = "tensorrt"
    return found


def qualified(names: list[str], known: dict[str, str]) -> tuple[str, str] | None:
    """(module, "Class.member") of a chain that goes through a module of TensorRT."""
    places = [index for index, name in enumerate(names[:-1]) if name in known]
    if not places:
        return None
    module, rest = known[names[places[-1]]], names[places[-1] + 1 :]
    if module == "tensorrt" and rest[0] == "plugin":
        module, rest = "tensorrt.plugin", rest[1:]
    return (module, ".".join(rest[:2])) if rest else None


def used_names(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of whatever `source` takes from TensorRT: attributes, imports, keywords."""
    tree = ast.parse(source)
    known = aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = qualified(chain(node), known)
            if name:
                yield name
        if isinstance(node, ast.ImportFrom) and node.module in CONVENTION.values():
            yield from ((str(node.module), item.name) for item in node.names)
        if isinstance(node, ast.Call):
            name = qualified(chain(node.func), known)
            if name and name[0] == "tensorrt.plugin":
                for keyword in node.keywords:
                    yield name[0], f"{name[1]}({keyword.arg})"


def project_files() -> list[Path]:
    files = [path for name in FOLDERS for path in (ROOT / name).rglob("*.py")]
    return sorted({path.resolve() for path in files})


def missing(used: set[tuple[str, str]], versions: dict[str, Names]) -> list[str]:
    return sorted(
        f"{module}.{name} is not in {version}"
        for version, modules in versions.items()
        for module, name in used
        if name not in modules[module]
    )


def test_names_are_known_for_two_releases(versions: dict[str, Names]) -> None:
    assert sorted(versions) == ["10.16.1.11", "11.4.0.106"]
    for modules in versions.values():
        assert {"register", "aot_impl", "KernelLaunchParams(grid_x)"} <= modules["tensorrt.plugin"]
    assert "BuilderFlag.FP16" in versions["10.16.1.11"]["tensorrt"]
    assert "BuilderFlag.FP16" not in versions["11.4.0.106"]["tensorrt"]


def test_every_name_exists_in_both_releases(versions: dict[str, Names]) -> None:
    used = {path: set(used_names(path.read_text(encoding="utf-8"))) for path in project_files()}
    problems = {path: missing(names, versions) for path, names in used.items()}
    assert not {str(path): lines for path, lines in problems.items() if lines}
    modules = {module for module, _ in used[PLUGIN.resolve()]}
    assert modules == set(CONVENTION.values())  # nothing collected would be nothing tested


def test_every_attribute_of_a_descriptor_exists(versions: dict[str, Names]) -> None:
    tree = ast.parse(PLUGIN.read_text(encoding="utf-8"))
    chains = [chain(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {names[1] for names in chains if names and names[0] in DESCRIPTORS}
    assert {"dtype", "shape", "shape_expr"} <= used
    assert not missing({("tensorrt.plugin", f"TensorDesc.{name}") for name in used}, versions)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import tensorrt as trt\ntrt.BuilderFlag.FP16", "tensorrt.BuilderFlag.FP16"),
        ("import tensorrt\ntensorrt.IInt8Calibrator", "tensorrt.IInt8Calibrator"),
        ("import tensorrt as t\nt.plugin.nothing()", "tensorrt.plugin.nothing"),
        ("import tensorrt.plugin as p\np.SymInt64", "tensorrt.plugin.SymInt64"),
        ("from tensorrt import Weightz", "tensorrt.Weightz"),
        ("trt = load()\ntrt.Builder.platform_has_fast_fp16", "Builder.platform_has_fast_fp16"),
        ("self.trtp.SymFloat32(1)", "tensorrt.plugin.SymFloat32"),
        ("trtp.KernelLaunchParams(grid_w=1)", "tensorrt.plugin.KernelLaunchParams(grid_w)"),
    ],
)
def test_a_name_that_is_not_in_both_is_found(
    source: str, name: str, versions: dict[str, Names]
) -> None:
    problems = missing(set(used_names(source)), versions)
    assert problems and all(name in problem for problem in problems)
