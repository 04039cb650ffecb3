from __future__ import annotations

import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from sshr_deploy.benchmarks.peers import set_up
from sshr_deploy.benchmarks.slides.contenders import PEERS
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
    folder = set_up.set_up("tiatoolbox")
    assert made == [folder]
    assert folder == tmp_path / "sshr-deploy" / "peers" / "tiatoolbox"
    assert Path(asked[0][0]).parent.parent == folder
    assert Path(asked[0][-1]).is_file()
    _has_python(folder)
    assert set_up.is_set_up("tiatoolbox")
    with pytest.raises(UsageError, match="pip could not install tiatoolbox into"):
        set_up.set_up("tiatoolbox")
    assert not set_up.is_set_up("tiatoolbox")


def test_what_was_cut_short_is_not_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(folder: Path, **_: Any) -> None:
        _has_python(folder)
        raise KeyboardInterrupt

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(venv, "create", cut_short)
    with pytest.raises(KeyboardInterrupt):
        set_up.set_up("tiatoolbox")
    assert set_up.python_of("tiatoolbox").exists()
    peer = next(peer for peer in PEERS if peer.venv == "tiatoolbox")
    assert "peers.set_up tiatoolbox" in str(peer.cannot_run(has_checkpoint=True))


def test_a_python_too_new_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(set_up, "_NEWEST_PYTHON", {"wsinfer": (3, 10)})
    with pytest.raises(UsageError, match=r"needs NumPy 1.* by Python 3\.10 or"):
        set_up.set_up("wsinfer")
    assert not list(tmp_path.iterdir())


def _has_python(folder: Path) -> None:
    python = set_up.python_of(folder.name)
    python.parent.mkdir(parents=True)
    python.touch()


def test_other_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no peer 'nobody'; choose wsinfer, tiatoolbox"):
        set_up.set_up("nobody")
