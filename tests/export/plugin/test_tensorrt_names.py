"""Every TensorRT name that the project uses exists in TensorRT 10.16 and in 11.4."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("sshr_deploy", "train", "export", "runtime", "benchmarks", "demo")
PLUGIN = ROOT / "export" / "plugin" / "tensorrt_plugin.py"
CONVENTION = {"trt": "tensorrt", "trtp": "tensorrt.plugin"}
"""What these two names stand for in every file, however they were imported."""
OBJECTS = {
    "builder": {"Builder"},
    "config": {"IBuilderConfig", "IRuntimeConfig"},
    "context": {"IExecutionContext"},
    "engine": {"ICudaEngine"},
    "inspector": {"EngineInspector"},
    "network": {"INetworkDefinition"},
    "parser": {"OnnxParser"},
    "profile": {"IOptimizationProfile"},
    "runtime": {"Runtime"},
    "tensor": {"ITensor"},
}
"""What variables of these names, and private attributes, are in files that use `trt`."""
RTX = {"rtx": "", "rtx_config": "IRuntimeConfig.", "rtx_cache": "IRuntimeCache."}
"""Variables for what TensorRT-RTX alone has."""
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
    public = [name for name in rest[:2] if not name.startswith("__")]
    return (module, ".".join(public)) if public else None


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


def used_members(source: str) -> Iterator[tuple[str, str]]:
    """(variable, attribute) of objects of TensorRT, in a file that uses the module `trt`."""
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    if "trt" not in names:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            *_, name, member = ["", *chain(node)] if chain(node) else ["", ""]
            if name.removeprefix("_") in OBJECTS:
                yield name.removeprefix("_"), member


def missing_members(used: set[tuple[str, str]], versions: dict[str, Names]) -> list[str]:
    return sorted(
        f"{name}.{member} is not in {version}"
        for version, modules in versions.items()
        for name, member in used
        if not any(f"{kind}.{member}" in modules["tensorrt"] for kind in OBJECTS[name])
    )


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


def test_every_member_of_an_object_exists_in_both_releases(versions: dict[str, Names]) -> None:
    files = [path for path in project_files() if path != PLUGIN.resolve()]
    used = {path: set(used_members(path.read_text(encoding="utf-8"))) for path in files}
    problems = {path: missing_members(members, versions) for path, members in used.items()}
    assert not {str(path): lines for path, lines in problems.items() if lines}
    found = set().union(*used.values())
    assert {("engine", "get_tensor_name"), ("context", "execute_async_v3")} <= found
    for kinds in OBJECTS.values():
        for modules in versions.values():
            assert kinds <= modules["tensorrt"]


def test_every_name_of_rtx_alone_exists_there() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    used = set()
    for path in project_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = chain(node) if isinstance(node, ast.Attribute) else []
            if len(names) > 1 and names[0] in RTX:
                used.add(RTX[names[0]] + ".".join(names[1:]))
    assert "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy" in used
    assert {"IRuntimeConfig.create_runtime_cache", "IRuntimeCache.deserialize"} <= used
    for name in used:
        assert operator.attrgetter(name)(rtx) is not None, name


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


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(trt, engine): engine.get_binding_name(0)", "engine.get_binding_name"),
        ("trt = load()\nself._context.execute_async_v2", "context.execute_async_v2"),
        ("trt.x\nconfig.set_calibration_profile(p)", "config.set_calibration_profile"),
    ],
)
def test_a_member_that_is_not_in_both_is_found(
    source: str, name: str, versions: dict[str, Names]
) -> None:
    (problem, *_) = missing_members(set(used_members(source)), versions)
    assert name in problem
    assert not set(used_members(source.replace("trt", "other")))
