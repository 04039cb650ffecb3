"""The script in the kit: what it refuses, and one real installation."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sshr_deploy.pack import install
from sshr_deploy.pack.install import KitError, check_machine, read_kit
from tests.pack.kit_script import change_a_byte, run, set_field

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
needs_311 = pytest.mark.skipif(HERE != "3.11", reason="the kit of the tests is for Python 3.11")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("python", "3.99", "is for CPython 3.99 and this is CPython"),
        ("system", "Windows", "is for Windows on x86_64 and this is"),
        ("machine", "aarch64", "is for Linux on aarch64 and this is"),
        ("glibc", "9.1", "needs glibc 9.1 or newer and this system has"),
    ],
)
def test_another_machine_is_refused(
    field: str, value: str, words: str, kit: Path, tmp_path: Path
) -> None:
    set_field("python", HERE)(kit)
    set_field(field, value)(kit)
    with pytest.raises(KitError, match=words):
        check_machine(read_kit(kit))
    done = run(kit, "--venv", tmp_path / "venv")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("install.py: error: the kit ")
    assert not (tmp_path / "venv").exists()


def in_the_way(case: str, kit: Path, venv: Path) -> Path:
    if case == "is inside the kit":
        return kit / "wheels" / "venv"
    if case == "file":
        venv.write_text("mine")
        return venv
    venv.mkdir()
    name = "sshr-deploy-kit.installed" if case == "holds another kit" else "mine"
    (venv / name).write_text("0")
    return venv


@needs_311
@pytest.mark.parametrize("case", ["is inside the kit", "file", "folder", "holds another kit"])
def test_what_is_in_the_way_stays(case: str, kit: Path, tmp_path: Path) -> None:
    venv = in_the_way(case, kit, tmp_path / "venv")
    before = sorted(tmp_path.rglob("*"))
    words = case if " " in case else "this program did not make it"
    with pytest.raises(KitError, match=words):
        install.install(kit, venv)
    assert sorted(tmp_path.rglob("*")) == before


@needs_311
def test_a_changed_kit_is_not_installed(kit: Path, tmp_path: Path) -> None:
    change_a_byte(next((kit / "wheels").glob("*.part003")))
    done = run(kit, "--venv", tmp_path / "venv")
    assert done.returncode == 1
    assert "part003 (SHA-256 differs)" in done.stderr
    assert "nothing was installed" in done.stderr
    assert not (tmp_path / "venv").exists()


@needs_311
def test_it_installs_and_a_second_run_only_looks(kit: Path, tmp_path: Path, index: Path) -> None:
    venv = tmp_path / "Umgebung für Labor 1"
    venv.mkdir()
    (venv / "sshr-deploy-kit.unfinished").touch()  # as a run that was stopped leaves it
    (venv / "bin").mkdir()
    (venv / "bin" / "half").touch()
    before = sorted(kit.rglob("*"))
    done = run(kit, "--venv", venv)
    assert done.returncode == 0, done.stderr
    program = venv / "bin" / "sshr-deploy"
    words = f"'{program}' infer SLIDES --model '{venv / 'bundle'}' --out RESULTS"
    assert done.stdout == f"next: {words}\n"
    site = venv / "lib" / "python3.11" / "site-packages"
    assert {path.name for path in site.glob("*.py")} >= {"needed.py", "deeper.py", "engine_cpu.py"}
    assert (site / "engine_cpu.bin").read_bytes() == bytes(range(256)) * 9_000  # from three parts
    for path in (kit / "bundle").iterdir():
        assert (venv / "bundle" / path.name).read_bytes() == path.read_bytes()
    assert (venv / "doctor.txt").read_text("utf-8") == f"doctor --model {venv / 'bundle'}"
    assert {path.name for path in venv.iterdir()} - {"lib64", "include", "share"} == {
        "bin",
        "lib",
        "bundle",
        "pyvenv.cfg",
        "doctor.txt",
        "sshr-deploy-kit.installed",
    }
    assert not (venv / "bin" / "half").exists()
    assert sorted(kit.rglob("*")) == before  # a kit may be on a disc that cannot be written

    (venv / "not-ready").touch()
    again = run(kit, "--venv", venv)
    assert again.returncode == 1
    assert "holds this kit already" in again.stderr
    assert "the lines above say what this machine lacks" in again.stderr


@needs_311
@pytest.mark.skipif(os.name == "nt", reason="limits of a process")
def test_a_full_disk_is_not_called_done(kit: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(kit / "install.py"), "--venv", str(venv)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("install.py: error: no virtual environment could be made")
    assert done.stdout == ""
    assert (venv / "sshr-deploy-kit.unfinished").exists()
    assert not (venv / "sshr-deploy-kit.installed").exists()


@needs_311
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_leaves_an_unfinished_folder(kit: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    command = [sys.executable, str(kit / "install.py"), "--venv", str(venv)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, encoding="utf-8", start_new_session=True
    )
    with process:
        while not (venv / "pyvenv.cfg").exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; the same command begins anew" in stderr
    assert (venv / "sshr-deploy-kit.unfinished").exists()
    assert not (venv / "sshr-deploy-kit.installed").exists()


def test_an_old_python_reads_the_script() -> None:
    """So that it can say which Python is needed."""
    tree = ast.parse(Path(install.__file__).read_text("utf-8"), feature_version=(3, 8))
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
