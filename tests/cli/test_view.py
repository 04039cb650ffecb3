"""`sshr-deploy view` up to where it begins to serve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sshr_deploy.runtime.viewer import serving
from tests.cli.command import run_here
from tests.runtime.viewer.results import add_slide, labels


@pytest.fixture
def results(tmp_path: Path) -> Path:
    add_slide(tmp_path / "out", tmp_path / "a.svs", labels(60, 70), (70, 60))
    return tmp_path / "out"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = run_here("view", tmp_path / "nothing")
    assert done.returncode == 2
    assert "is not a folder; give the one that --out of infer named" in done.stderr


def test_a_folder_without_results(tmp_path: Path) -> None:
    done = run_here("view", tmp_path)
    assert done.returncode == 2
    assert "holds no results that can be shown; give the folder that --out of" in done.stderr


def test_without_the_extra(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "sshr_deploy.runtime.viewer.serving")
    done = run_here("view", results)
    assert done.returncode == 2
    assert "uvicorn is not installed: pip install 'sshr-deploy[view]'" in done.stderr


def test_the_address_is_printed_and_ctrl_c_ends_it(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(server: serving.Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving.Server, "run", interrupted)
    done = run_here("view", results, "--no-browser")
    assert done.returncode == 0
    assert done.stdout.startswith("http://127.0.0.1:")
    assert "1 input to look at; Ctrl-C ends the viewer" in done.stderr


def test_the_browser_is_not_told_the_token(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(serving.Server, "run", lambda server: None)
    monkeypatch.setenv("DISPLAY", ":0")
    done = run_here("view", results)
    assert opened and opened[0].startswith("file://")
    assert done.stdout.strip() not in opened[0]


def test_a_terminal_gets_no_browser(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("opened"))
    monkeypatch.setattr(serving.Server, "run", lambda server: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert run_here("view", results).returncode == 0
