"""The wheel of this project that goes into a kit."""

from __future__ import annotations

import shutil
import tomllib
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from tempfile import TemporaryDirectory

import sshr_deploy
from sshr_deploy._links import LINKS
from sshr_deploy.errors import KernelError, UsageError
from sshr_deploy.pack.pip_process import run_pip
from sshr_deploy.pack.targets import Target
from sshr_deploy.runtime.kernels.manifest import MANIFEST_NAME, load_manifest
from sshr_deploy.version import __version__

_KERNELS = "sshr_deploy/runtime/kernels/cubins"
_BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@dataclass(frozen=True)
class ProjectWheel:
    """A wheel of this release."""

    path: Path
    without_kernels: str
    """Why it has no precompiled GPU kernels; "" where they are whole."""


def build_project_wheel(work: Path) -> Path:
    """Build the wheel of the checkout that this package is installed from, below `work`.

    Built from a copy: `pip wheel` leaves folders in its source, and takes old ones from there.

    Raises:
        UsageError: the package is not installed from a checkout, or pip cannot build it.
        OSError: `work` cannot be written.
    """
    package = Path(sshr_deploy.__file__).resolve().parent
    root = package.parent
    if not _is_checkout(root):
        raise UsageError(
            f"{root} is no checkout of sshr-deploy that a wheel could be built from; give the "
            "wheel that this was installed from with `wheel`"
        )
    with TemporaryDirectory(dir=work) as folder:
        copy, built = Path(folder, "source"), Path(folder, "built")
        copy.mkdir()
        for name in _BUILD_FILES:
            shutil.copyfile(root / name, copy / name)
        junk = shutil.ignore_patterns("__pycache__")
        for name in (package.name, *LINKS):
            shutil.copytree(root / name, copy / name, symlinks=True, ignore=junk)
        run_pip(["wheel", "--no-deps", "--wheel-dir", str(built), str(copy)], "this checkout", work)
        (wheel,) = built.glob("*.whl")
        return wheel.replace(work / wheel.name)


def check_project_wheel(path: Path, target: Target) -> ProjectWheel:
    """Check that `path` is a wheel of this release with the target's extras, and its kernels.

    Raises:
        UsageError: it is not; or `target` has a GPU and the kernels are missing or not whole.
    """
    version = __version__
    try:
        with zipfile.ZipFile(path) as archive:
            info = f"sshr_deploy-{version}.dist-info/METADATA"
            if info not in archive.namelist():
                raise UsageError(f"{path} is no wheel of sshr-deploy {version}; build it again")
            metadata = Parser().parsestr(archive.read(info).decode("utf-8"))
            without_kernels = _missing_kernels(archive)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a wheel: {error}; build it again") from error
    lacking = set(target.extras) - set(metadata.get_all("Provides-Extra", []))
    if lacking:
        raise UsageError(f"{path} has no extra [{', '.join(sorted(lacking))}]; build it again")
    if target.has_gpu and without_kernels:
        raise UsageError(
            f"{path} has no GPU kernels for {target.name}: {without_kernels}; run `make kernels` "
            "in the checkout, then pack again"
        )
    return ProjectWheel(path, without_kernels)


def _missing_kernels(archive: zipfile.ZipFile) -> str:
    """Why the precompiled kernels in a wheel cannot serve; "" where each is there and whole."""
    names = [name for name in archive.namelist() if name.startswith(_KERNELS)]
    if f"{_KERNELS}/{MANIFEST_NAME}" not in names:
        return "nothing was compiled when the wheel was built"
    with TemporaryDirectory() as folder:
        archive.extractall(folder, names)
        try:
            cubins = load_manifest(Path(folder, _KERNELS)).cubins
            for cubin in cubins:
                cubin.read()
        except KernelError:
            return "their manifest and their files do not agree"
    return "" if cubins else "their manifest names none"


def _is_checkout(root: Path) -> bool:
    try:
        with (root / "pyproject.toml").open("rb") as file:
            return bool(tomllib.load(file)["project"]["name"] == "sshr-deploy")
    except (OSError, ValueError, KeyError):
        return False
