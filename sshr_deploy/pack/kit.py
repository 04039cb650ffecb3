"""A kit: what a workstation without internet needs, in one folder, each file with its hash.

kit/
  README.txt, install.sh, install.py    how to check and install it, and what does it
  kit.json                              what it is for, and every file with bytes and SHA-256
  SHA256SUMS                            the same for `sha256sum -c`
  wheels/, bundle/                      packages and model; large files as .part001 and so on
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import output_errors, partial_folder, replace_folder
from sshr_deploy.bundle import MANIFEST_NAME, Bundle, load_bundle
from sshr_deploy.errors import BundleError, OutputError, UsageError
from sshr_deploy.pack import install
from sshr_deploy.pack.project_wheel import build_project_wheel, check_project_wheel
from sshr_deploy.pack.targets import Target
from sshr_deploy.pack.wheels import Wheel, WheelSource, glibc_of
from sshr_deploy.runtime.machine.clock import now_utc
from sshr_deploy.runtime.progress import OnStep, tell_nobody
from sshr_deploy.version import __version__

MB = 10**6
_INSTALL_SH = """\
#!/bin/sh
python=$(command -v python{python} || command -v python3) ||
    {{ echo "there is no python3 here: install Python {python} first" >&2; exit 1; }}
exec "$python" "$(dirname "$0")/install.py" "$@"
"""
_README = """\
sshr-deploy {version} for {target}, CPython {python}, packed {created}.
Model: {title}. Research use only; not a medical device.

1. Copy this whole folder to the workstation. No internet is needed there.
2. Check it, with either of
       sha256sum -c SHA256SUMS
       python{python} install.py verify
   and compare the SHA-256 of kit.json with the one that was printed when the kit was packed.
3. Install it:       python{python} install.py --venv DIR      (or: sh install.sh --venv DIR)
   It checks everything again first, and can be run again if it was stopped.
4. The last line that it prints segments slides. To remove everything, delete DIR.
"""


@dataclass(frozen=True)
class PackSettings:
    """Choices of a user for a kit."""

    target: Target
    python: str
    """"3.11"."""
    wheel: Path | None = None
    """Of this project; built from its checkout where it is None."""
    max_part_mb: int | None = None
    """Files above this are split, in 1e6 bytes."""
    overwrite: bool = False


@dataclass(frozen=True)
class Kit:
    """A kit that is written, in figures."""

    path: Path
    wheels: int
    bytes: int
    sha256: str
    """Of `kit.json`, which has the hashes of all else."""


def work_folder(out: Path) -> Path:
    """Where what was fetched for the kit `out` is kept until it is whole."""
    return out.resolve().with_name(f".{out.resolve().name}.pack-work")


def pack(bundle_dir: Path, out: Path, settings: PackSettings, on_step: OnStep = tell_nobody) -> Kit:
    """Write the kit `out`; it appears whole and checked, or not at all.

    What was fetched stays in `work_folder(out)` until the kit is whole, so that a run after one
    that was stopped goes on.

    Raises:
        BundleError: the bundle is altered or incomplete.
        UsageError: `out` is in the way; the project's wheel does not fit; pip finds no wheel for a
            package (named), or failed.
        OutputError: a file cannot be written.
    """
    out, work = out.resolve(), work_folder(out)
    _check_out(out, overwrite=settings.overwrite)
    bundle = load_bundle(bundle_dir)
    with output_errors(out):
        work.mkdir(parents=True, exist_ok=True)
        project = _project_wheel(settings, work, on_step)
        wheels = WheelSource(settings.target, settings.python, work, on_step)
        on_step(f"finding the packages for {settings.target.name}, Python {settings.python}")
        chosen = wheels.resolve(project)
        files = [project]
        for number, wheel in enumerate(chosen[1:], 2):
            on_step(f"[{number}/{len(chosen)}] {wheel.name} {wheel.version}")
            files.append(wheels.fetch(wheel))
        with partial_folder(out) as partial:
            on_step("writing the kit")
            _gather(partial, files, bundle)
            _describe(partial, chosen, bundle, settings)
            _check(partial)
            if hasattr(os, "sync"):
                os.sync()
            replace_folder(partial, out)
        shutil.rmtree(work, ignore_errors=True)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return Kit(out, len(chosen), size, install.file_hash(out / install.KIT_NAME))


def _project_wheel(settings: PackSettings, work: Path, on_step: OnStep) -> Path:
    """The wheel that was given, or a new one of the checkout; checked."""
    project = settings.wheel
    if project is None:
        on_step("building the wheel of this checkout")
        project = build_project_wheel(work)
    checked = check_project_wheel(project, settings.target)
    if checked.without_kernels:
        on_step(f"{project.name} has no GPU kernels: {checked.without_kernels} (`make kernels`)")
    return project


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Only a kit and nothing else may be replaced."""
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        kit = install.read_kit(out)
    except install.KitError as error:
        raise UsageError(
            f"{out} exists and is no whole kit; choose another `out`, or remove it"
        ) from error
    names = {part["name"] for part in install.stored(kit)}
    foreign = install.extra_files(out, names | {install.KIT_NAME, install.SUMS_NAME})
    if foreign:
        raise UsageError(f"{out} holds more than a kit ({foreign[0]}); move that away")
    if not overwrite:
        raise UsageError(f"{out} exists; add `overwrite` to replace that kit, or choose another")


def _gather(kit: Path, wheels: list[Path], bundle: Bundle) -> None:
    """Wheels, bundle and install.py in their folders of the kit."""
    (kit / install.WHEELS).mkdir()
    for path in wheels:
        target = kit / install.WHEELS / path.name
        try:
            os.link(path, target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(path, target)
    for name in [MANIFEST_NAME, *bundle.manifest.files]:
        if not install.is_safe(name):
            raise BundleError(f"{bundle.path}: a kit cannot hold the name {name!r}; export again")
        target = kit / install.BUNDLE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, target)
    if load_bundle(kit / install.BUNDLE).manifest_sha256 != bundle.manifest_sha256:
        raise BundleError(f"{bundle.path} changed while it was copied; pack it again")
    shutil.copyfile(install.__file__, kit / "install.py")


def _describe(kit: Path, wheels: list[Wheel], bundle: Bundle, settings: PackSettings) -> None:
    """Split what is large; write README.txt, install.sh, kit.json and SHA256SUMS."""
    target, python = settings.target, settings.python
    created = now_utc()
    texts = {"python": python, "target": target.name, "created": created}
    title, version = bundle.manifest.profile.title, __version__
    _write(kit / "README.txt", _README.format(title=title, version=version, **texts))
    _write(kit / "install.sh", _INSTALL_SH.format(python=python))
    for name in ("install.sh", "install.py"):
        (kit / name).chmod(0o755)
    names = sorted(path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file())
    largest = None if settings.max_part_mb is None else settings.max_part_mb * MB
    content: dict[str, Any] = {
        "kit_schema": install.SCHEMA,
        "target": target.name.value,
        "python": python,
        "system": target.on.system,
        "machine": target.on.machine,
        "glibc": glibc_of([wheel.file for wheel in wheels]),
        "extras": list(target.extras),
        "created_utc": created,
        "packed_with": {
            "sshr-deploy": version,
            "python": platform.python_version(),
            "pip": metadata.version("pip"),
        },
        "packages": [
            {"name": wheel.name, "version": wheel.version, "sha256": wheel.sha256}
            for wheel in wheels
        ],
        "files": [_entry(kit, name, largest) for name in names],
    }
    described = {**content, "self_sha256": install.self_hash(content)}
    _write(kit / install.KIT_NAME, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    digest = install.file_hash(kit / install.KIT_NAME)
    _write(kit / install.SUMS_NAME, install.sums_text(content, digest))


def _entry(kit: Path, name: str, largest: int | None) -> dict[str, Any]:
    """The entry of a file in `kit.json`; it is split if it has more than `largest` bytes."""
    path = kit / name
    size = path.stat().st_size
    entry = {"name": name, "bytes": size, "sha256": install.file_hash(path)}
    if largest is None or size <= largest:
        return {**entry, "parts": []}
    parts: list[dict[str, Any]] = []
    with path.open("rb") as file:
        while file.tell() < size:
            part = path.with_name(f"{path.name}.part{len(parts) + 1:03d}")
            with part.open("wb") as output:
                while output.tell() < largest and (chunk := file.read(MB)):
                    output.write(chunk)
            facts = {"bytes": part.stat().st_size, "sha256": install.file_hash(part)}
            parts.append({"name": part.relative_to(kit).as_posix(), **facts})
    path.unlink()
    return {**entry, "parts": parts}


def _check(kit: Path) -> None:
    """Read all of it back, as the workstation will."""
    problems = install.find_problems(kit)
    if problems:
        raise OutputError(f"what was written does not read back ({problems[0]}); check the disk")


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="\n")
