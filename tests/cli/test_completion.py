"""What shells ask for at the tabulator key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import SETTINGS, run_here

VARIABLE = "_SSHR_DEPLOY_COMPLETE"


def asked(monkeypatch: pytest.MonkeyPatch, shell: str, line: str) -> str:
    """Answer to a shell at the end of a line."""
    words = line.split(" ")
    settings = {
        VARIABLE: f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    for name, value in settings.items():
        monkeypatch.setitem(SETTINGS, name, value)
    done = run_here()
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_choices(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    assert "infer" in asked(monkeypatch, shell, "sshr-deploy inf")
    assert "--min-region-um2" in asked(monkeypatch, shell, "sshr-deploy infer --min")
    assert "seamless" in asked(monkeypatch, shell, "sshr-deploy infer --mode s")
    assert "latency" in asked(monkeypatch, shell, "sshr-deploy benchmark lat")
    assert "--config" in asked(monkeypatch, shell, "sshr-deploy watch --conf")


def test_options_that_are_given_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, "bash", "sshr-deploy infer --mpp 1 --mpp").split() == ["--mpp-table"]


def test_each_shell_gets_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    for shell in ("bash", "zsh", "fish"):
        done = run_here("--show-completion", shell)
        assert done.returncode == 0, done.stderr
        assert VARIABLE in done.stdout and f"complete_{shell}" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "sshr-deploy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sshr_deploy "$@"\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    script = (
        'eval "$(_SSHR_DEPLOY_COMPLETE=source_bash sshr-deploy)"\n'
        "COMP_WORDS=(sshr-deploy eng); COMP_CWORD=1\n"
        "_sshr_deploy_completion sshr-deploy\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=False,
        env={**SETTINGS, "PATH": path},
    )  # fmt: skip
    assert done.stdout.split() == ["engines"], done.stderr
