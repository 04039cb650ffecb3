"""What is built and installed; all of it from a copy, so that the repository stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from sshr_deploy import __version__
from sshr_deploy._links import LINKS

PARTS = ("sshr_deploy", *LINKS)
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
SENTENCE = "is not a link to ../{}: clone again with `git clone -c core.symlinks=true`"


KERNELS = "runtime/kernels/cubins"
KERNEL_FILES = ("manifest.json", "sm_90/op-variant.cubin", "sm_80/op-plugin.ptx")
"""What `make kernels` leaves there, which `make build` runs first."""


def copy_repository(root: Path, to: Path, *parts: str) -> Path:
    for name in BUILD_FILES:
        shutil.copy(root / name, to / name)
    junk = shutil.ignore_patterns("__pycache__")
    for name in parts:
        shutil.copytree(root / name, to / name, symlinks=True, ignore=junk)
    return to


def run(
    *command: str | Path, cwd: Path, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def pip_install(source: Path, target: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--target", target)
    return run("-m", "pip", "install", *options, source, cwd=cwd)


@pytest.fixture(scope="module")
def built(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist and the wheel that was built from it."""
    copy = copy_repository(repo_root, tmp_path_factory.mktemp("repository"), *PARTS, "tests")
    shutil.rmtree(copy / KERNELS, ignore_errors=True)
    for name in KERNEL_FILES:
        (copy / KERNELS / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / KERNELS / name).write_text(name, encoding="utf-8")
    results = copy / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    (results / "latency-fp32.json").write_text("{}", encoding="utf-8")
    out = tmp_path_factory.mktemp("dist")
    done = run("-m", "build", "--no-isolation", "--outdir", out, cwd=copy)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("target")
    done = pip_install(wheel, target, target)
    assert done.returncode == 0, done.stderr
    return target


def sources(root: Path) -> set[str]:
    """Every file of the repository that has to be in the wheel."""
    package = root / "sshr_deploy"
    wanted = {path for path in package.glob("*") if path.suffix == ".py"} | {package / "py.typed"}
    for folder in [path for path in package.iterdir() if path.is_dir()]:  # links among them
        wanted |= set(folder.rglob("*.py"))
    wanted |= {*package.glob("profiles/*.toml"), *package.glob("train/recipes/*.toml")}
    wanted |= set(package.glob("export/qualification/*.*"))
    wanted |= set(package.glob("runtime/results/schemas/*.json"))
    wanted |= {package / "benchmarks/report/benchmark.schema.json"}
    wanted |= set(package.glob("benchmarks/peers/*.txt"))
    wanted |= {package / "runtime/report/tokens.css", *package.glob("runtime/report/templates/*")}
    wanted |= {p for p in package.glob("runtime/viewer/static/**/*") if p.is_file()}
    names = {path.relative_to(root).as_posix() for path in wanted}
    return names | {f"sshr_deploy/{KERNELS}/{name}" for name in KERNEL_FILES}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path, repo_root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
    for info in infos:
        assert info.external_attr >> 28 != 0o12, f"{info.filename} is a link"
    metadata = f"sshr_deploy-{__version__}.dist-info/"
    names = {info.filename for info in infos if not info.filename.startswith(metadata)}
    assert names == sources(repo_root)
    for link in LINKS:
        assert f"sshr_deploy/{link}/__init__.py" in names


def test_sdist_holds_what_the_wheel_is_built_from(built: Path, repo_root: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert not [member.name for member in members if member.issym() or member.islnk()]
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert sources(repo_root) <= names
    extra = names - sources(repo_root) - set(BUILD_FILES)
    assert {name for name in extra if not name.startswith("sshr_deploy.egg-info/")} == {
        "PKG-INFO",
        "setup.cfg",
    }


def test_install_lands_only_the_package_and_its_command(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {
        "sshr_deploy",
        f"sshr_deploy-{__version__}.dist-info",
        "bin",
    }
    assert [path.stem for path in (installed / "bin").iterdir()] == ["sshr-deploy"]


def test_installed_package_imports_from_its_own_folders(installed: Path, tmp_path: Path) -> None:
    modules = ", ".join(f"sshr_deploy.{link}" for link in LINKS)
    code = f"import {modules}; print(sshr_deploy.__file__, sshr_deploy.runtime.__file__)"
    done = run("-c", code, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    package, runtime = (Path(line) for line in done.stdout.split())
    assert package == installed / "sshr_deploy" / "__init__.py"
    assert runtime == installed / "sshr_deploy" / "runtime" / "__init__.py"


def test_edge_requires_no_torch(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = f"sshr_deploy-{__version__}.dist-info/METADATA"
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    requirements: list[str] = metadata.get_all("Requires-Dist", [])
    edge = [line for line in requirements if "extra ==" not in line]
    edge += [line for line in requirements if 'extra == "cpu"' in line]
    assert [line for line in edge if line.startswith("onnxruntime")]
    assert not [line for line in edge if line.startswith(("torch", "onnxscript", "triton"))]


@pytest.fixture
def linkless(repo_root: Path, tmp_path: Path) -> Path:
    """The repository as git leaves it where links cannot be made: text files that hold the path."""
    copy = copy_repository(repo_root, tmp_path, *PARTS)
    for link in LINKS:
        (copy / "sshr_deploy" / link).unlink()
        (copy / "sshr_deploy" / link).write_text(f"../{link}", encoding="utf-8")
    return copy


def test_clone_without_links_is_not_imported(linkless: Path) -> None:
    done = run("-c", "import sshr_deploy", cwd=linkless)
    assert done.returncode == 1
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: sshr_deploy/train ")
    assert SENTENCE.format("train") in last_line


def test_clone_without_links_is_not_installed(linkless: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = pip_install(linkless, target, linkless)
    assert done.returncode == 1
    assert SENTENCE.format("train") in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not target.exists() or not list(target.iterdir())


@pytest.mark.parametrize("link", LINKS)
def test_one_missing_link_is_enough(linkless: Path, link: str) -> None:
    for other in set(LINKS) - {link}:
        (linkless / "sshr_deploy" / other).unlink()
        (linkless / "sshr_deploy" / other).mkdir()
    done = run("-c", "import sshr_deploy", cwd=linkless)
    assert SENTENCE.format(link) in done.stderr
