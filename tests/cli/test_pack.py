"""`sshr-deploy pack` as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pack.stand_ins import write_bundle, write_index, write_project


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index, the project's wheel and a bundle."""
    root = tmp_path_factory.mktemp("packing")
    write_index(root / "index")
    write_project(root)
    write_bundle(root / "bundle")
    return root


def start(
    folder: Path, *arguments: str | Path, limit_bytes: int | None = None
) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "NO_COLOR": "1", "COLUMNS": "100"}
    env |= {"PIP_FIND_LINKS": str(folder / "index"), "PYTHONIOENCODING": "utf-8"}
    prefix = [sys.executable, "-m", "sshr_deploy"]
    if limit_bytes is not None:
        code = (
            "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}));"
            "sys.argv[0] = 'sshr-deploy'; runpy.run_module('sshr_deploy', run_name='__main__')"
        )
        prefix = [sys.executable, "-c", code]
    return subprocess.Popen(
        [*prefix, "pack", *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def run(
    folder: Path, *arguments: str | Path, limit_bytes: int | None = None
) -> tuple[int, str, str]:
    with start(folder, *arguments, limit_bytes=limit_bytes) as process:
        stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def for_kit(folder: Path, out: Path) -> list[str | Path]:
    (wheel,) = folder.glob("*.whl")
    words: list[str | Path] = ["--target", "linux-x86_64-cpu", "--python", "3.11"]
    return [*words, "--model", folder / "bundle", "--out", out, "--wheel", wheel]


def test_a_kit_is_packed_and_checked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "Kit für Labor 1"
    code, stdout, stderr = run(folder, *for_kit(folder, out), "--max-part-mb", "1")
    assert code == 0, stderr
    first, second = stdout.splitlines()
    assert first.startswith(f"{out}: linux-x86_64-cpu, Python 3.11, 4 wheels, ")
    assert second.startswith("SHA-256 of kit.json: ")
    assert "finding the packages for linux-x86_64-cpu, Python 3.11" in stderr
    assert "[2/4] deeper 1.0" in stderr
    assert "has no GPU kernels" in stderr
    digest = second.split()[3].rstrip(";")
    code, stdout, stderr = run(folder, "--verify", out)
    assert (code, stdout) == (0, "")
    assert stderr == f"{out} is whole; SHA-256 of kit.json: {digest}\n"
    (out / "README.txt").unlink()
    code, stdout, stderr = run(folder, "--verify", out)
    assert code == 1
    assert stderr.splitlines()[0] == "missing: README.txt"
    code, _, stderr = run(folder, *for_kit(folder, out))
    assert code == 2
    assert f"{out} exists; add --overwrite" in stderr


def test_quiet_says_nothing(folder: Path, tmp_path: Path) -> None:
    assert run(folder, *for_kit(folder, tmp_path / "kit"), "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--target", "mars"], "Invalid value for '--target'"),
        (["--target", "linux-x86_64-rtx", "--wheel", "none.whl"], "cannot be read as a wheel"),
        (["--target", "linux-x86_64-rtx"], "no GPU kernels"),
        (["--python", "three"], "--python three is no version such as 3."),
        (["--python", "3.8"], "pip finds no wheel of"),
        (["--model", "nowhere"], "is not a bundle"),
        (["--max-part-mb", "0"], "Invalid value for '--max-part-mb'"),
    ],
)
def test_wrong_usage_is_one_line(
    words: list[str], expected: str, folder: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = run(folder, *for_kit(folder, tmp_path / "kit"), *words)
    assert (code, stdout) == (2, "")
    assert expected in " ".join(stderr.replace("│", " ").split())
    assert "Traceback" not in stderr
    assert not (tmp_path / "kit").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_what_was_fetched(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "kit"
    with start(folder, *for_kit(folder, out)) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[3/4]"):  # the second is there
                os.killpg(process.pid, signal.SIGINT)
                break
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 1
    work = tmp_path / ".kit.pack-work"
    assert rest.splitlines()[-1].startswith(f"interrupted; what was fetched is kept in {work}")
    assert [path.name for path in tmp_path.iterdir()] == [work.name]
    assert len(list((work / "wheels").glob("deeper*.whl"))) == 1
    code, _, stderr = run(folder, *for_kit(folder, out))
    assert code == 0, stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


@pytest.mark.skipif(os.name == "nt", reason="limits of a process")
def test_a_full_disk_leaves_no_kit(folder: Path, tmp_path: Path) -> None:
    arguments = for_kit(folder, tmp_path / "kit")
    code, stdout, stderr = run(folder, *arguments, limit_bytes=1_000_000)  # for the largest wheel
    assert (code, stdout) == (1, ""), stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].endswith(
        "kit: File too large; free space or choose another place"
    )
    assert not (tmp_path / "kit").exists()
