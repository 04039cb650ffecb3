from __future__ import annotations

import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sshr_deploy.benchmarks.peers import set_up
from sshr_deploy.errors import UsageError


@pytest.mark.parametrize("name", set_up.NAMES)
def test_releases_are_pinned(name: str) -> None:
    lines = (Path(set_up.__file__).parent / f"{name}.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert name in {requirement.name for requirement in pinned}
    assert all([s.operator for s in requirement.specifier] == ["=="] for requirement in pinned)


def test_pip_of_the_new_environment_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, len(asked) - 1)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(venv, "create", lambda folder, **_: made.append(folder))
    monkeypatch.setattr(subprocess, "run", run)
    folder = set_up.set_up("wsinfer")
    assert made == [folder]
    assert folder == tmp_path / "sshr-deploy" / "peers" / "wsinfer"
    assert Path(asked[0][0]).parent.parent == folder
    assert Path(asked[0][-1]).is_file()
    with pytest.raises(UsageError, match="pip could not install wsinfer into"):
        set_up.set_up("wsinfer")


def test_other_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no peer 'nobody'; choose wsinfer, tiatoolbox"):
        set_up.set_up("nobody")
