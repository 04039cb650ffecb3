from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_another_package_called_tests_does_not_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_root: Path
) -> None:
    """As where an installed package has brought its own; `python -m pytest` has this path too."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [
        sys.executable,
        "-c",
        "import tests.runtime.fake_nvidia_smi as ours; print(ours.__file__)",
    ]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(repo_root / "tests/runtime/fake_nvidia_smi.py"), done.stderr
