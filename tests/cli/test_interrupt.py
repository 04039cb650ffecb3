"""Ctrl-C before a run has begun ends in one line."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sshr_deploy.__main__ import main

WAIT_AT_IMPORT = """
import runpy, sys, time
class Wait:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            print("here", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Wait())
sys.argv = ["sshr-deploy", "infer", "none.svs", "--model", "none", "--out", {out!r}]
runpy.run_module("sshr_deploy", run_name="__main__")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("module", ["typer", "numpy"])
def test_ctrl_c_while_modules_load_is_one_line(tmp_path: Path, module: str) -> None:
    code = WAIT_AT_IMPORT.format(module=module, out=str(tmp_path / "out"))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "sshr-deploy: interrupted\n")


def test_ctrl_c_while_the_command_line_loads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "sshr_deploy.cli", Interrupted("sshr_deploy.cli"))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "sshr-deploy: interrupted\n"


def test_ctrl_c_while_an_engine_is_opened_leaves_nothing(
    small_bundle_dir: Path,
    demo_slide: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        assert (tmp_path / "out" / ".sharing").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(
        importlib.import_module("sshr_deploy.cli.engine"), "open_model", interrupted
    )
    options = ["--model", str(small_bundle_dir), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["sshr-deploy", "infer", str(demo_slide), *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "sshr-deploy: interrupted\n"
    assert not (tmp_path / "out").exists()
