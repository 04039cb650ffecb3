"""What pip finds, what it does not, and what it is asked again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.pack.targets import TARGETS, Target, TargetName
from sshr_deploy.pack.wheels import Wheel, WheelSource, glibc_of
from tests.pack.stand_ins import write_source, write_wheel

CPU, RTX = TARGETS[TargetName.LINUX_CPU], TARGETS[TargetName.LINUX_RTX]


def source(target: Target, python: str, work: Path, said: list[str] | None = None) -> WheelSource:
    work.mkdir(exist_ok=True)
    return WheelSource(target, python, work, (said if said is not None else []).append)


@pytest.mark.parametrize(
    ("target", "python", "expected"),
    [
        (TargetName.LINUX_CPU, "3.11", {"deeper", "engine-cpu", "needed"}),
        (TargetName.LINUX_CPU, "3.13", {"deeper", "engine-cpu", "needed", "needed-by-313"}),
    ],
)
def test_markers_are_those_of_the_target(
    target: TargetName, python: str, expected: set[str], project: Path, tmp_path: Path
) -> None:
    """This Python is neither or one of them; pip alone would read the markers for this one."""
    wheels = source(TARGETS[target], python, tmp_path / "work").resolve(project)
    assert [wheel.name for wheel in wheels] == ["sshr-deploy", *sorted(expected)]
    (deeper,) = [wheel.file for wheel in wheels if wheel.name == "deeper"]
    assert f"-cp{python.replace('.', '')}-" in deeper


def test_a_missing_wheel_is_named_with_the_fix(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        source(replace(CPU, extras=("rtx",)), "3.11", tmp_path / "work").resolve(project)
    text = str(caught.value)
    assert "pip finds no wheel of engine-rtx" in text
    assert "linux-x86_64-cpu, Python 3.11" in text
    assert "pip wheel engine-rtx" in text
    hinted = replace(CPU, extras=("rtx",), hint="it comes from elsewhere")
    with pytest.raises(UsageError, match=r"engine-rtx.*; it comes from elsewhere"):
        source(hinted, "3.11", tmp_path / "work").resolve(project)


def test_a_package_known_to_be_source_only_is_built(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: Path
) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    write_source(sources, "engine_rtx")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{index} {sources}")
    target = replace(CPU, extras=("rtx",), source_only=("engine-rtx",))
    said: list[str] = []
    found = source(target, "3.11", tmp_path / "work with spaces", said)
    (wheel,) = [wheel for wheel in found.resolve(project) if wheel.name == "engine-rtx"]
    assert wheel.file == "engine_rtx-1.0-py3-none-any.whl"
    assert said == ["building engine-rtx, which is published as source only"]
    assert found.fetch(wheel).name == wheel.file


def test_packages_that_do_not_fit_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    write_wheel(index, "needed", "1.0", requires=["other<1"])
    write_wheel(index, "other", "2.0")
    project = write_wheel(tmp_path, "sshr_deploy", requires=["needed", "other>=2"])
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(UsageError) as caught:
        source(replace(CPU, extras=()), "3.11", tmp_path / "work").resolve(project)
    assert "conflicting dependencies" in str(caught.value) or "other<1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pip_fetches_exactly_what_it_chose(tmp_path: Path, index: Path) -> None:
    path = index / "needed-0.9-py3-none-any.whl"  # there is a newer one
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wheel = Wheel("needed", "0.9", path.name, digest, "https://somewhere/needed.whl")
    found = source(CPU, "3.11", tmp_path / "work").fetch(wheel)
    assert found.read_bytes() == path.read_bytes()
    other = replace(wheel, sha256="0" * 64)
    with pytest.raises(UsageError, match=r"pip failed at needed 0\.9: .*HASHES"):
        source(CPU, "3.11", tmp_path / "work").fetch(other)
    with pytest.raises(UsageError, match="is not the file that pip chose"):
        source(CPU, "3.11", tmp_path / "work").fetch(replace(other, url=path.as_uri()))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a-1-py3-none-any.whl"], ""),
        (["a-1-cp311-cp311-win_amd64.whl"], ""),
        (["a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"], "2.17"),
        (["a-1-cp311-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"], "2.27"),
        (
            [
                "a-1-cp311-abi3-manylinux_2_5_x86_64.whl",
                "b-1-cp311-cp311-manylinux_2_28_x86_64.whl",
            ],
            "2.28",
        ),
        (["a-1-cp311-cp311-manylinux1_x86_64.whl"], "2.5"),
    ],
)
def test_glibc_is_what_all_wheels_run_on(files: list[str], expected: str) -> None:
    assert glibc_of(files) == expected


def test_every_target_is_there() -> None:
    assert set(TARGETS) == set(TargetName)
    for name, target in TARGETS.items():
        assert target.name is name
        assert target.has_gpu == ("cpu" not in name.value)
        assert not {"cpu", "gpu"} <= set(target.extras)  # they own the same module
        assert {"view", "watch"} <= set(target.extras)  # of every page for the lab
