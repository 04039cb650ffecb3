"""Lists every public name of the TensorRT bindings in `tensorrt_names.json`, one version a run.

The libraries of TensorRT come from a vendor's index; the bindings alone are on PyPI and import
beside empty libraries that export the functions they link to. In an environment of its own:

    pip install --no-deps tensorrt-cu13-bindings==11.4.0.106 && pip install numpy
    python tensorrt_names.py stubs /tmp/stubs --major 11
    LD_LIBRARY_PATH=/tmp/stubs python tensorrt_names.py names tensorrt_names.json

and again with 10.16.1.11 and `--major 10`. Nothing but names can be asked of such bindings.

"Class.member" stands for class attributes, enum members and methods; in `tensorrt.plugin`, which
is Python, "function(parameter)" stands for a parameter of a function or of a class's constructor.
"""

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

STUBS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvonnxparser": (
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getNvOnnxParserVersion",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
}


def make_stubs(folder: Path, major: int) -> None:
    """Compile with `cc`, into `folder`, the three libraries that the bindings of `major` link to."""
    folder.mkdir(parents=True, exist_ok=True)
    for library, functions in STUBS.items():
        name = f"lib{library}.so.{major}"
        source = "".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions)
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name]
        subprocess.run([*command, "-x", "c", "-"], input=source, text=True, check=True)


def public_names(module: ModuleType, parameters: bool) -> list[str]:
    """Sorted public names of a module and of its classes' members, submodules left out."""
    exported = getattr(module, "__all__", ())  # `tensorrt.plugin.op` is one of these, and a module
    names = []
    for name in public(dir(module)):
        value = getattr(module, name)
        if inspect.ismodule(value) and name not in exported:
            continue
        names.append(name)
        if inspect.isclass(value):
            names += [f"{name}.{member}" for member in public(dir(value))]
        if parameters and callable(value):
            names += [f"{name}({item})" for item in public(inspect.signature(value).parameters)]
    return sorted(names)


def public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def write_names(path: Path) -> None:
    """Put the names of the bindings that are installed here into the JSON file at `path`."""
    try:
        import tensorrt
    except ImportError:
        import tensorrt_bindings as tensorrt

        sys.modules["tensorrt"] = tensorrt
    import tensorrt.plugin

    versions = json.loads(path.read_text()) if path.exists() else {}
    versions[tensorrt.__version__] = {
        "tensorrt": public_names(tensorrt, parameters=False),
        "tensorrt.plugin": public_names(tensorrt.plugin, parameters=True),
    }
    path.write_text(json.dumps(dict(sorted(versions.items())), indent=0) + "\n")
    for module, names in versions[tensorrt.__version__].items():
        print(f"{module} {tensorrt.__version__}: {len(names)} names")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    stubs = commands.add_parser("stubs", help="compile empty libraries to import the bindings with")
    stubs.add_argument("folder", type=Path)
    stubs.add_argument("--major", type=int, required=True, help="of the TensorRT release, 10 or 11")
    names = commands.add_parser("names", help="list the names of the installed bindings")
    names.add_argument("json", type=Path, help="the file to add them to")
    arguments = parser.parse_args()
    if arguments.command == "stubs":
        make_stubs(arguments.folder, arguments.major)
    else:
        write_names(arguments.json)


if __name__ == "__main__":
    main()
