"""Which wheel of the project may go into a kit."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from sshr_deploy import __version__
from sshr_deploy.errors import UsageError
from sshr_deploy.pack.project_wheel import build_project_wheel, check_project_wheel
from sshr_deploy.pack.targets import TARGETS, TargetName
from tests.pack.stand_ins import write_project, write_wheel
from tests.runtime.kernels.kernel_folder import make_kernels

CPU, RTX = TARGETS[TargetName.LINUX_CPU], TARGETS[TargetName.LINUX_RTX]
KERNELS = "sshr_deploy/runtime/kernels/cubins"


def kernels(tmp_path: Path) -> dict[str, bytes]:
    folder = make_kernels(tmp_path / "kernels")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {f"{KERNELS}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def test_whole_kernels_serve_a_gpu(tmp_path: Path) -> None:
    wheel = write_project(tmp_path, files=kernels(tmp_path))
    assert check_project_wheel(wheel, RTX).without_kernels == ""


def test_altered_kernels_do_not(tmp_path: Path) -> None:
    files = kernels(tmp_path)
    name = next(name for name in files if name.endswith(".cubin"))
    wheel = write_project(tmp_path, files={**files, name: b"another"})
    with pytest.raises(UsageError, match=r"manifest and their files do not agree.*make kernels"):
        check_project_wheel(wheel, RTX)


def test_a_cpu_needs_no_kernels(project: Path) -> None:
    assert "nothing was compiled" in check_project_wheel(project, CPU).without_kernels


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    for wheel in (
        write_wheel(tmp_path, "needed"),
        write_project(tmp_path, version="99.0"),
    ):
        words = re.escape(f"is no wheel of sshr-deploy {__version__}")
        with pytest.raises(UsageError, match=words):
            check_project_wheel(wheel, CPU)


def test_a_wheel_without_the_extra_is_refused(tmp_path: Path) -> None:
    wheel = write_project(tmp_path, extras=["cpu", "view", "watch"])
    with pytest.raises(UsageError, match=r"has no extra \[rtx\]"):
        check_project_wheel(wheel, RTX)


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_what_is_no_wheel_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "sshr_deploy.whl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as a wheel"):
        check_project_wheel(path, CPU)


def test_the_checkout_is_built_and_stays_as_it_was(repo_root: Path, tmp_path: Path) -> None:
    before = {path.name for path in repo_root.iterdir()}
    wheel = build_project_wheel(tmp_path)
    assert wheel.name == f"sshr_deploy-{__version__}-py3-none-any.whl"
    check_project_wheel(wheel, CPU)
    with zipfile.ZipFile(wheel) as archive:
        assert "sshr_deploy/runtime/masks.py" in archive.namelist()
    assert {path.name for path in repo_root.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {wheel.name, "tmp", "pip.log"}


def test_an_installation_says_that_it_needs_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshr_deploy.__file__", str(tmp_path / "a" / "__init__.py"))
    with pytest.raises(UsageError, match=r"is no checkout .*`wheel`"):
        build_project_wheel(tmp_path)
