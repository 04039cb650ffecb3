"""The part of `gpu.check` that runs tests, on tests of its own."""

from __future__ import annotations

import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.gpu import own_tests
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.benchmarks.gpu.own_tests import run_tests
from sshr_deploy.errors import SshrDeployError

ONE_OF_EACH = """
import pytest
def test_right(): pass
@pytest.mark.parametrize("text", ["a b"])
def test_wrong(text): assert False
def test_left_out(): pytest.skip("needs an NVIDIA GPU")
@pytest.fixture
def broken(): raise OSError
def test_broken(broken): pass
"""


def rows_of(file: io.StringIO) -> list[tuple[str, str]]:
    rows = [json.loads(line)["row"] for line in file.getvalue().splitlines()]
    return [(row["test"], row["failed"]) for row in rows]


def test_each_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a real pytest in one process."""
    found = find_spec
    monkeypatch.setattr(own_tests, "find_spec", lambda n: None if n == "xdist" else found(n))
    (tmp_path / "test_a.py").write_text(ONE_OF_EACH)
    file = io.StringIO()
    with pytest.raises(SshrDeployError) as caught:
        run_tests(PartOutput(file, 60.0), tmp_path, ("test_a.py",))
    for counted in ("1 passed", "1 failed", "1 skipped", "1 error"):
        assert counted in str(caught.value)
    assert sorted(rows_of(file)) == [
        ("test_a.py::test_broken", "error"),
        ("test_a.py::test_wrong[a b]", "failed"),
    ]


WITH_XDIST = """
created: 2/2 workers
2 workers [4 items]

scheduling tests via LoadScheduling
test_a.py::test_wrong[a b]
test_a.py::test_right
[gw1] [ 25%] PASSED test_a.py::test_right
[gw0] [ 50%] FAILED test_a.py::test_wrong[a b]
test_a.py::test_broken
[gw1] [ 75%] SKIPPED test_a.py::test_left_out
[gw0] [100%] ERROR test_a.py::test_broken
____________________________ test_wrong[a b] ____________________________
E   assert False
=========================== short test summary info ============================
FAILED test_a.py::test_wrong[a b] - assert False
ERROR test_a.py::test_broken - OSError
=============== 1 failed, 1 passed, 1 skipped, 1 error in 0.05s ================
"""


@pytest.mark.parametrize("code", [0, 1])
def test_the_lines_of_a_pytest_with_xdist(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", f"print({WITH_XDIST!r}); raise SystemExit({code})"]
    monkeypatch.setattr(own_tests, "_command", lambda root, tests: command)
    file = io.StringIO()
    summary = "1 passed, 1 failed, 1 skipped, 1 error"
    if code:
        with pytest.raises(SshrDeployError, match=f"tests: {summary}, pytest's exit code 1"):
            run_tests(PartOutput(file, 60.0), tmp_path, (".",))
    else:
        assert run_tests(PartOutput(file, 60.0), tmp_path, (".",))["summary"] == summary
    assert rows_of(file) == [
        ("test_a.py::test_wrong[a b]", "failed"),
        ("test_a.py::test_broken", "error"),
    ]


def test_an_installation_without_tests(tmp_path: Path) -> None:
    with pytest.raises(SshrDeployError, match="no tests beside this package"):
        run_tests(PartOutput(io.StringIO(), 60.0), tmp_path, ("tests/runtime",))
