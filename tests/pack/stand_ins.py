"""A tiny index, a tiny sshr-deploy and a tiny bundle: real wheels and a real manifest."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from sshr_deploy import __version__
from sshr_deploy.bundle import file_entry, write_manifest
from sshr_deploy.manifest import Artifact, Manifest, ModelFacts, Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import load_profile

PROGRAM = """\
import sys
from pathlib import Path

def main():
    if sys.argv[1] == "--version":
        print("sshr-deploy stand-in")
        return 0
    home = Path(sys.prefix)
    (home / "doctor.txt").write_text(" ".join(sys.argv[1:]))
    return 1 if (home / "not-ready").exists() else 0
"""
REQUIRES = (
    "needed>=1",
    "needed-by-313 ; python_version >= '3.13'",
    "needed-on-windows ; sys_platform == 'win32'",
    "engine-cpu ; extra == 'cpu'",
    "engine-rtx ; extra == 'rtx'",
)


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    extras: Sequence[str] = (),
    files: Mapping[str, str | bytes] | None = None,
    script: str = "",
) -> Path:
    """Write a minimal wheel of the package `name` (with "_") into `folder`."""
    info = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    content: dict[str, str | bytes] = dict(files or {f"{name}.py": f"VERSION = {version!r}\n"})
    content[f"{info}/METADATA"] = "\n".join(metadata) + "\n"
    wheel = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
    content[f"{info}/WHEEL"] = wheel
    if script:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script}\n"
    content[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in content) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in content.items():
            archive.writestr(file, text)
    return path


def write_project(
    folder: Path,
    *,
    version: str = __version__,
    extras: Sequence[str] = ("cpu", "gpu", "rtx", "tensorrt", "view", "watch"),
    files: Mapping[str, str | bytes] | None = None,
) -> Path:
    """The wheel of a stand-in for this project, whose program remembers what `doctor` got."""
    code = {"sshr_deploy/__init__.py": "", "sshr_deploy/main.py": PROGRAM}
    return write_wheel(
        folder,
        "sshr_deploy",
        version,
        requires=REQUIRES,
        extras=extras,
        files={**code, **(files or {})},
        script="sshr-deploy = sshr_deploy.main:main",
    )


def write_index(folder: Path) -> Path:
    """Everything that the stand-in needs, for `PIP_FIND_LINKS`."""
    folder.mkdir()
    write_wheel(folder, "needed", "0.9")
    write_wheel(folder, "needed", "1.2", requires=["deeper"])
    write_wheel(folder, "deeper", tag="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64")
    write_wheel(folder, "deeper", tag="cp313-cp313-manylinux_2_17_x86_64")
    write_wheel(folder, "needed_by_313", tag="cp313-cp313-manylinux_2_28_x86_64")
    write_wheel(folder, "needed_on_windows", tag="cp311-cp311-win_amd64")
    big = {"engine_cpu.bin": bytes(range(256)) * 9_000}
    write_wheel(folder, "engine_cpu", files={"engine_cpu.py": "", **big})
    return folder


def write_source(folder: Path, name: str, version: str = "1.0") -> Path:
    """A source distribution of a package without code, built by setuptools."""
    project = f'[project]\nname = "{name}"\nversion = "{version}"\n'
    build = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    modules = "[tool.setuptools]\npy-modules = []\n"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, text in (("pyproject.toml", project + build + modules), ("PKG-INFO", metadata)):
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text)
            archive.addfile(member, BytesIO(text.encode()))
    return path


def write_bundle(folder: Path) -> Path:
    """A whole bundle whose graph is no graph, with an engine that one machine built."""
    (folder / "engines").mkdir(parents=True)
    (folder / "engines" / "this-machine.engine").write_bytes(b"of this machine alone")
    (folder / "model.onnx").write_bytes(b"graph" * 1000)
    (folder / "reference.npz").write_bytes(b"patches" * 100)
    artifact = Artifact(
        engines=("onnx-cpu",),
        precision=Precision.FP32,
        file="model.onnx",
        opset=18,
        hfrm_form="depthwise",
        tolerance=Tolerance(mask_agreement=1.0),
        qualification=None,
        not_qualified_because="it is no graph",
    )
    facts = ModelFacts(
        width=2,
        num_classes=4,
        parameters=1,
        gflop_per_patch=1.0,
        checkpoint_name="none",
        checkpoint_sha256="0" * 64,
    )
    manifest = Manifest(
        schema_version=2,
        created_utc="2026-01-01T00:00:00+00:00",
        profile=load_profile("luad"),
        model=facts,
        tool_versions={},
        reference_file="reference.npz",
        artifacts=[artifact],
        files={name: file_entry(folder / name) for name in ("model.onnx", "reference.npz")},
    )
    write_manifest(folder, manifest)
    return folder


def edit_kit(kit: Path, change: Callable[[dict[str, Any]], object], *, rehash: bool = True) -> None:
    """Change kit.json and SHA256SUMS, as somebody would who knows how they are hashed."""
    file = kit / "kit.json"
    content = json.loads(file.read_text("utf-8"))
    change(content)
    if rehash:
        content.pop("self_sha256")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["self_sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(json.dumps(content), "utf-8")
    rows = [("kit.json", hashlib.sha256(file.read_bytes()).hexdigest())]
    for entry in content["files"]:
        rows += [(part["name"], part["sha256"]) for part in entry["parts"] or [entry]]
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(rows))
    (kit / "SHA256SUMS").write_text(sums, "utf-8")
